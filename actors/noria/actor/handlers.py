"""Running a step's function in this process, within its time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from noria.errors import StepTimeout
from noria.workflow.context import Context, Heard
from noria.workflow.steps import Step

T = TypeVar("T")


def call_here(step: Step, value: Any, context: Context, threads: Executor, timeout: float | None) -> Awaitable[Any]:
    """What the function gives: an async one in the loop, a sync one in a thread. Raises StepTimeout past so many seconds."""
    work = _call(step, value, context, threads)
    return work if timeout is None else in_time(step, timeout, work)


async def in_time(step: Step, timeout: float | None, work: Awaitable[T]) -> T:
    """Raises StepTimeout past so many seconds; a TimeoutError of the work's own goes through."""
    deadline = asyncio.timeout(timeout)
    try:
        async with deadline:
            return await work
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise StepTimeout(f"step {step.id!r} took longer than {timeout} s") from error


async def _call(step: Step, value: Any, context: Context, threads: Executor) -> Any:
    with Heard(context):
        if step.fn.is_async:
            return await step.fn.call(value, context)
        work = partial(step.fn.call, value, context)
        result = await asyncio.get_running_loop().run_in_executor(threads, copy_context().run, work)
        return await result if inspect.isawaitable(result) else result

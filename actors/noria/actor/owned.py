"""Tasks have an owner, who sees to it that none outlives him."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All at once; what they give. When one raises the others are stopped first."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await stop(tasks)


async def stop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel them and wait for their ends, of whatever kind: who stops them has a reason of his own already."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await finish(tasks)


async def finish(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait for their ends, of whatever kind."""
    tasks = list(tasks)
    if left := [task for task in tasks if not task.done()]:
        await asyncio.wait(left)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # retrieved

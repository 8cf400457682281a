"""Functions that do what one does not expect of them: the run comes to an end all the same, and the worker lives."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.conformance.doubles import gives

from noria import Context, Noria, RunResult, Workflow, computed, step

COMES_TO = {"suspend": "suspended", "bail": "success", "abort": "canceled"}


@asynccontextmanager
async def hosted(noria: Noria, flow: Workflow, elsewhere: bool) -> AsyncIterator[None]:
    if not elsewhere:
        async with noria.worker(flow, lease=5):
            yield
        return
    async with (
        Noria.connect(noria.url, namespace=noria.namespace) as other,
        other.worker(flow, runs=False, grace=0),
        noria.worker(flow, steps=False, lease=5),
    ):
        yield


async def ask(ctx: Context, signal: str) -> None:
    ctx.abort() if signal == "abort" else getattr(ctx, signal)("said")


async def in_a_group(ctx: Context, signal: str) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(30))
        await ask(ctx, signal)


async def in_a_task(ctx: Context, signal: str) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(ask(ctx, signal))


async def swallowed(ctx: Context, signal: str) -> Any:
    try:
        await ask(ctx, signal)
    except BaseException:
        return "what is returned then is ignored"


async def replaced(ctx: Context, signal: str) -> None:
    try:
        await ask(ctx, signal)
    finally:
        raise ValueError("while cleaning up")


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("signal", COMES_TO)
async def test_what_a_step_asked_for_counts_whatever_becomes_of_it(noria: Noria, signal: str, elsewhere: bool) -> None:
    async def run(way: Any) -> RunResult:
        async def work(x: Any, ctx: Context) -> Any:
            return await way(ctx, signal)

        flow = Workflow(way.__name__.replace("_", "-")).then(step(work, id="a")).then(gives("next", 1)).commit()
        async with hosted(noria, flow, elsewhere):
            return await noria.run(flow, 1, timeout=10)

    for result in [await run(way) for way in (in_a_group, in_a_task, swallowed, replaced)]:
        assert result.status == COMES_TO[signal] and "next" not in result.steps, result
        assert result.result == ("said" if signal == "bail" else None)
        assert [s.payload for s in result.suspended] == (["said"] if signal == "suspend" else [])


async def test_a_condition_that_aborts_and_raises_cancels_the_run(noria: Noria) -> None:
    async def stop(_: Any, ctx: Context) -> Any:
        return await replaced(ctx, "abort")

    loop = Workflow("loop").do_while(gives("a", 1), stop)
    mapping = Workflow("mapping").map({"x": computed(stop)})
    async with noria.worker(loop, mapping, lease=5):
        assert [(await noria.run(flow, 1, timeout=10)).status for flow in (loop.id, mapping.id)] == ["canceled", "canceled"]


class Own(BaseException):
    """Of the user's."""


def stops(_: Any) -> None:
    raise StopIteration("no more")


def leaves(_: Any) -> None:
    sys.exit(3)


async def leaves_at_once(_: Any) -> None:
    sys.exit(3)


def raises_own(_: Any) -> None:
    raise Own("mine")


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("function", [stops, leaves, leaves_at_once, raises_own])
async def test_what_is_raised_and_is_no_exception_fails_the_step(noria: Noria, function: Any, elsewhere: bool) -> None:
    flow = Workflow("odd").then(step(function, id="a")).commit()
    async with hosted(noria, flow, elsewhere):
        result = await noria.run(flow, 1, timeout=10)
    assert result.status == result.steps["a"].status == "failed" and result.error is not None
    assert result.error.type == "RuntimeError" and result.error.cause is not None
    assert result.error.cause.type in ("StopIteration", "SystemExit", "Own") and result.error.cause.type in result.error.message


@pytest.mark.parametrize("function", [stops, leaves, raises_own])
async def test_in_conditions_mappings_and_callbacks_as_well(noria: Noria, function: Any) -> None:
    loop = Workflow("loop").do_while(gives("a", 1), function)
    mapping, sources = Workflow("mapping").map(function), Workflow("sources").map({"x": computed(function)})
    quiet = Workflow("quiet", on_finish=function).then(gives("a", 1))
    aborting = Workflow("aborting", on_finish=lambda result, ctx: ctx.abort()).then(gives("a", 1))
    flows = (loop, mapping, sources, quiet, aborting)
    async with noria.worker(*flows, lease=5):
        ends = [(await noria.run(flow.id, 1, timeout=10)).status for flow in flows]
    assert ends == ["failed", "failed", "failed", "success", "success"]

"""What combinations of constructs come to, beyond the rows: values, errors, retries, types, wherever a step may stand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from noria import Context, NonRetryable, Noria, Retry, Step, Workflow, step


@step
def same(x: Any) -> Any:
    return x


def places(unit: Any, **options: Any) -> dict[str, tuple[Workflow, Callable[[Any], Any]]]:
    """A workflow for each place where a unit may stand; with what its result is, given the unit's output."""

    def flow(id: str) -> Workflow:
        return Workflow(id, **options)

    return {
        "then": (flow("then").then(unit), lambda out: out),
        "nested": (flow("nested").then(Workflow("around", **options).then(unit)), lambda out: out),
        "parallel": (flow("parallel").parallel(unit), lambda out: {unit.id: out}),
        "apart": (flow("apart").parallel(unit, placement="spread"), lambda out: {unit.id: out}),
        "branch": (flow("branch").branch((lambda: True, unit)), lambda out: {unit.id: out}),
        "foreach": (flow("foreach").map(lambda x: [x]).foreach(unit), lambda out: [out]),
        "spread": (flow("spread").map(lambda x: [x]).foreach(unit, placement="spread"), lambda out: [out]),
        "loop": (flow("loop").do_until(unit, lambda: True), lambda out: out),
    }


@pytest.mark.parametrize("value", [None, 0, "", False, [], {}])
async def test_a_falsy_value_is_a_value_wherever_it_stands(noria: Noria, value: Any) -> None:
    def leave(x: Any, ctx: Context) -> None:
        ctx.bail(x)

    inner = Workflow("inner").then(same)
    whole = {**places(same), **{f"w-{k}": v for k, v in places(inner).items()}}
    flows = {k: (flow.clone(id=k), out) for k, (flow, out) in whole.items()}
    flows["bails"] = (Workflow("bails").parallel(step(leave)).then(step(lambda: 7, id="never")), lambda out: out)
    async with noria.worker(*(flow for flow, _ in flows.values())):
        results = await asyncio.gather(*(noria.run(flow, value, timeout=30) for flow, _ in flows.values()))
    for result, (flow, shape) in zip(results, flows.values(), strict=True):
        assert (result.status, repr(result.result), repr(result.input)) == ("success", repr(shape(value)), repr(value)), flow


class Mine(ValueError):
    pass


class Sub(Mine):
    pass


def failing(error: Exception, tries: Counter[str]) -> Step:
    def fails(x: Any, ctx: Context) -> None:
        tries[ctx.run_id] += 1
        raise error from KeyError("root")

    return step(fails)


@pytest.mark.parametrize("nested", [False, True])
async def test_an_error_is_itself_and_its_class_decides_on_further_tries_wherever_it_is_raised(noria: Noria, nested: bool) -> None:
    tries: Counter[str] = Counter()
    error = Sub("told")
    error.code = 7  # type: ignore[attr-defined]
    unit: Any = failing(error, tries)
    unit = Workflow("inner").then(unit) if nested else unit
    retry = Retry(attempts=2)
    again, never = places(unit, retry=retry), places(unit, retry=Retry(attempts=2, non_retryable=(Mine,)))
    flows = [flow for flow, _ in again.values()] + [flow.clone(id=f"never-{k}") for k, (flow, _) in never.items()]
    async with noria.worker(*flows):
        results = await asyncio.gather(*(noria.run(flow, 1, run_id=flow.id, timeout=30) for flow in flows))
    for result in results:
        assert result.status == "failed" and result.error is not None and result.error.cause is not None, result
        assert (result.error.type, result.error.message, result.error.attributes) == ("Sub", "told", {"code": 7})
        assert (result.error.cause.type, result.error.cause.message) == ("KeyError", "'root'")
    tried = {id: n for id, n in tries.items() if not id.startswith("never-")}
    assert tried == {id: 9 if id == "nested" else 3 for id in again}, tried
    assert {n for id, n in tries.items() if id.startswith("never-")} == {1}, tries


async def test_a_computed_concurrency_is_any_number_of_one_or_more(noria: Noria) -> None:
    active = peak = 0

    async def work(x: int) -> int:
        nonlocal active, peak
        active += 1
        peak = max(peak, active)
        for _ in range(5):
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        active -= 1
        return x

    flow = Workflow("half").foreach(step(work), concurrency=lambda items: len(items) / 2).commit()
    async with noria.worker(flow):
        assert (await noria.run(flow, list(range(7)))).result == list(range(7))
    assert peak == 3


@pytest.mark.parametrize("kind", ["parallel", "branch", "foreach"])
@pytest.mark.parametrize("first", [True, False])
async def test_a_members_failure_does_not_stop_the_further_tries_beside_it(noria: Noria, kind: str, first: bool) -> None:
    """The first failure in the order of declaration is the block's."""
    tries: Counter[str] = Counter()

    def fails(which: str) -> None:
        tries[which] += 1
        raise ValueError(which) if which == "again" else NonRetryable(which)

    again, hopeless = Workflow("again").map(lambda: fails("again")), Workflow("hopeless").map(lambda: fails("hopeless"))
    units = [again, hopeless] if first else [hopeless, again]
    flow = Workflow("beside", retry=Retry(attempts=3))
    if kind == "foreach":
        flow = flow.map([u.id for u in units].copy).foreach(Workflow("item").map(fails), concurrency=2)
    else:
        flow = flow.parallel(*units) if kind == "parallel" else flow.branch(*((lambda: True, u) for u in units))
    async with noria.worker(flow):
        result = await noria.run(flow, timeout=20)
    assert tries == {"again": 4, "hopeless": 1}
    assert result.error is not None and result.error.message.endswith(units[0].id), result.error


async def test_a_condition_that_fails_stops_those_beside_it(noria: Noria) -> None:
    stopped = asyncio.Event()

    async def slow(x: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    async def fails(x: int) -> None:
        await asyncio.sleep(0)
        raise ValueError(x)

    flow = Workflow("asks").branch((slow, same), (fails, same.clone(id="other")))
    async with noria.worker(flow):
        result = await noria.run(flow, 7, timeout=20)
    assert stopped.is_set() and result.error is not None and result.error.message == "condition of 'branch-0': 7"


@pytest.mark.parametrize("kind", ["step", "loop", "nested", "members"])
async def test_no_suspension_counts_for_the_timeout_however_often(noria: Noria, kind: str) -> None:
    """Three of 0.8 s each, where 1.5 s are allowed; the time that members wait side by side counts once."""

    def asks(x: int, ctx: Context) -> int:
        asked = 1 + (ctx.suspend_data or 0)
        if asked <= (1 if kind == "members" else 3) and (kind == "step" or ctx.resume_data is None):
            ctx.suspend(asked)
        return x

    flow, third = Workflow("asks", timeout=1.5), lambda ctx: ctx.iteration == 3
    match kind:
        case "step":
            flow = flow.then(step(asks))
        case "loop":
            flow = flow.do_until(step(asks), third)
        case "nested":
            flow = flow.do_until(Workflow("inside").then(step(asks)), third)
        case _:
            flow = flow.parallel(*(step(asks, id=f"asks-{n}") for n in range(4))).then(step(asyncio.Event().wait, id="hangs"))
    async with noria.worker(flow, grace=0):
        run = noria.create_run(flow)
        result = await run.start(7)
        while result.status == "suspended":
            if kind != "members" or len(result.suspended) == 4:
                await asyncio.sleep(0.8)
            result = await run.resume(1, step=list(result.suspended[0].path))
    assert result.started_at is not None and result.ended_at is not None
    took = (result.ended_at - result.started_at).total_seconds()
    if kind == "members":
        assert result.error is not None and result.error.type == "StepTimeout" and 2.3 <= took < 4.2, took
    else:
        assert result.status == "success" and took > 2.4, result.error

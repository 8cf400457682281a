"""Wherever a child lives, the run is the same: each scenario once with its children in place, once spread over two workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import pytest

from noria import Context, NonRetryable, Noria, NoriaError, Retry, RunRecord, Tripwire, Workflow, step
from noria.client.run import Run
from noria.client.streams import RunStream

TIMED = {"started_at", "ended_at", "suspended_at", "resumed_at", "created_at", "updated_at", "until", "completed", "stack"}

SUSPENSION = ("suspend_payload", "suspend_output", "resume_payload")
ANY_TIME = ("workflow-step-progress", "workflow-step-output", "custom")


class Odd(Exception):
    """One with attributes and a cause."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


@step
async def prepare(x: int, ctx: Context) -> list[int]:
    ctx.set_state(prepared=x, rate=2)
    ctx.request_context["tenant"] = "t1"
    return [x, x + 1, x + 2]


@step
async def see(x: Any, ctx: Context) -> dict[str, Any]:
    await ctx.write({"saw": x})
    await ctx.emit("custom", [x, ctx.index])
    return {
        "x": x, "init": ctx.init_data, "state": {k: ctx.state.get(k) for k in ("prepared", "rate")}, "tenant": ctx.request_context["tenant"],
        "results": [ctx.step_result("prepare", "none"), ctx.step_result("double", "none"), ctx.step_result("see", "none")],
        "where": [list(ctx.path), ctx.index, ctx.iteration, ctx.attempt, ctx.step_id, ctx.workflow_id, ctx.resource_id, ctx.recovered],
        "resume": [ctx.resume_data, ctx.suspend_data],
    }  # fmt: skip


@step
async def double(x: int, ctx: Context) -> int:
    ctx.set_state({f"doubled{x}": 2 * x})
    ctx.request_context[f"seen{x}"] = True
    return 2 * x


@step(retry=Retry(attempts=2, delay=0.01))
async def flaky(x: int, ctx: Context) -> list[Any]:
    ctx.set_state({f"try{x}": ctx.attempt})
    if ctx.attempt < x % 3:
        raise Odd(f"not yet {x}", ctx.attempt)
    return [x, ctx.attempt, ctx.idempotency_key.partition(ctx.run_id)[2]]


@step
async def odd(x: int, ctx: Context) -> int:
    ctx.set_state(lost=x)
    if x % 2 == 0:
        return x
    try:
        raise KeyError("deep")
    except KeyError as error:
        raise Odd("odd", x) from error


@step(retry=Retry(attempts=5))
async def hopeless(x: int) -> int:
    if x == 6:
        raise NonRetryable("six")
    return x


@step
async def trips(x: int) -> int:
    if x == 6:
        raise Tripwire("six", retry=True, metadata={"x": x})
    return x


@step
async def bails(x: int, ctx: Context) -> int:
    return ctx.bail({"bailed": x}) if x == 5 else x


@step
async def aborts(x: int, ctx: Context) -> int:
    return ctx.abort() if x == 5 else x


@step
async def ask(x: int, ctx: Context) -> Any:
    if ctx.resume_data is None:
        ctx.set_state({f"asked{x}": True})
        ctx.suspend({"x": x}, label=[f"q{x}", "any"], output={"half": x})
    ctx.request_context[f"answer{x}"] = ctx.resume_data
    return {"x": x, "data": ctx.resume_data, "was": ctx.suspend_data, "state": ctx.state.get("prepared")}


@step
async def total(x: Any, ctx: Context) -> Any:
    return [x, ctx.step_result("prepare", None), sorted(k for k in ctx.state if k.startswith("doubled"))]


def first(values: list[int]) -> int:
    return values[0]


def items(unit: Any, placement: Any, concurrency: int = 3) -> Workflow:
    return Workflow("f").then(prepare).foreach(unit, concurrency=concurrency, placement=placement).then(total)


def members(placement: Any, *units: Any, **more: Any) -> Workflow:
    return Workflow("f").then(prepare).map(first).parallel(*units, placement=placement, **more).then(total)


def deep(placement: Any, unit: Any) -> Workflow:
    """Spread in spread in spread."""
    inner = Workflow("inner").then(double).map(lambda x: [x, x + 1]).foreach(unit, concurrency=2, placement=placement)
    arms = Workflow("arms").branch((lambda x: x > 5, inner), (lambda x: True, double.clone(id="also")))
    middle = Workflow("middle").parallel(arms, see, placement=placement)
    return Workflow("f").then(prepare).foreach(middle, concurrency=3, placement=placement).then(total)


def rounds(placement: Any) -> Workflow:
    body = Workflow("body").map(lambda x: [x, x]).foreach(see, placement=placement, concurrency=2).map(lambda out: out[0]["x"] + 1)
    return Workflow("f").then(prepare).map(first).do_until(body, lambda x: x >= 7).then(total)


def tried_again(placement: Any) -> Workflow:
    unit = Workflow("unit").then(odd).then(double)
    return Workflow("f", retry=Retry(attempts=1)).then(prepare).foreach(unit, placement=placement, concurrency=1).then(total)


def sleeps(placement: Any) -> Workflow:
    unit = Workflow("unit").sleep(lambda x: 2.2 if x % 2 else 0.05).then(double)
    return Workflow("f").then(prepare).foreach(unit, placement=placement, concurrency=3).then(total)


async def plainly(run: Run) -> None:
    await run.start(5, timeout=30)


async def resumed(run: Run) -> list[Any]:
    """By index, by label, by path, all the rest."""
    told = [await _waiting(run, run.start(5, timeout=30))]
    for how in ({"index": 1}, {"label": "q7"}, {"step": "ask"}):
        told.append(await _waiting(run, run.resume({"how": sorted(how)}, **how, request_context={"by": sorted(how)})))
    return told


async def resumed_deep(run: Run) -> list[Any]:
    told = [await _waiting(run, run.start(5, timeout=30))]
    for how in ({"label": "q12"}, {"step": ["middle", "arms", "inner", "ask"], "index": 1}, {"step": "middle.arms"}):
        told.append(await _waiting(run, run.resume(sorted(how), **how)))
    return told


async def refused(run: Run) -> list[Any]:
    told = [await _waiting(run, run.start(5, timeout=30))]
    for how in ({"index": 9}, {"label": "none"}, {"step": "none"}, {"step": "total"}):
        with pytest.raises(NoriaError) as error:
            await run.resume(1, **how)
        told.append([type(error.value).__name__, str(error.value)])
    return told


async def _waiting(run: Run, result: Awaitable[Any]) -> Any:
    found = await result
    return asdict(found)


async def stepwise(run: Run) -> list[Any]:
    result = await run.start(5, per_step=True, timeout=30)
    told = [result.status]
    while result.status == "paused":
        result = await run.resume(per_step=True)
        told.append(result.status)
    return told


async def half_stepwise(run: Run) -> list[Any]:
    """It begins at once, suspends, and goes on step by step."""
    told = [await _waiting(run, run.start(5, timeout=30))]
    result = await run.resume("a", index=0, per_step=True)
    while result.status == "paused":
        result = await run.resume(per_step=True)
        told.append(result.status)
    for n in (1, 2):
        result = await run.resume("b", index=n, per_step=True)
        while result.status == "paused":
            result = await run.resume(per_step=True)
            told.append(result.status)
    return told


async def canceled(run: Run) -> None:
    await run.start(5, timeout=30)
    await run.cancel()


async def travelled(run: Run) -> list[Any]:
    await run.start(5, timeout=30)
    told: list[Any] = []
    again = await run.time_travel("prepare", input=7)
    told.append([again.status, again.result])
    once = await run.time_travel("total", context={"prepare": {"status": "success", "output": [1]}})
    told.append([once.status, once.result])
    return told


async def forked(run: Run) -> list[Any]:
    await run.start(5, timeout=30)
    fork = await run.fork("total", run_id=f"{run.id}-fork")
    result = await fork.result()
    return [result.status, result.result, result.state]


class Scenario(NamedTuple):
    """`loose`: which siblings began before one of them ended the block hangs on how quick they were."""

    flow: Callable[[Any], Workflow]
    act: Callable[[Run], Awaitable[Any]] = plainly
    loose: bool = False


inner_ask = Workflow("unit").then(double).then(ask).then(see)
SCENARIOS = {
    "sees": Scenario(lambda p: items(see, p)),
    "members": Scenario(lambda p: members(p, see, double, Workflow("nested").then(double.clone(id="again")).then(see.clone(id="look")))),
    "deep": Scenario(lambda p: deep(p, see)),
    "rounds": Scenario(rounds),
    "one by one": Scenario(lambda p: items(double, p, 1)),
    "nothing": Scenario(lambda p: Workflow("f").map(list).foreach(see, placement=p)),
    "retries": Scenario(lambda p: items(flaky, p)),
    "a cause and attributes": Scenario(lambda p: items(odd, p, 1)),
    "several failures": Scenario(lambda p: members(p, odd, hopeless, double, odd.clone(id="odder"))),
    "allowed to fail": Scenario(lambda p: members(p, odd, hopeless, double, allow_failure=True)),
    "non-retryable": Scenario(lambda p: items(hopeless, p, 1)),
    "a nested workflow is tried again": Scenario(tried_again),
    "tripwire": Scenario(lambda p: items(trips, p, 1)),
    "bail of an item": Scenario(lambda p: items(bails, p, 1)),
    "bail in a nested item": Scenario(lambda p: items(Workflow("unit").then(bails).then(see), p)),
    "bail of a member": Scenario(lambda p: members(p, bails, double)),
    "abort": Scenario(lambda p: items(aborts, p, 1), loose=True),
    "suspends": Scenario(lambda p: items(ask, p), resumed),
    "suspends inside": Scenario(lambda p: items(inner_ask, p), refused),
    "suspends deep": Scenario(lambda p: deep(p, ask), resumed_deep),
    "members suspend": Scenario(lambda p: members(p, ask, ask.clone(id="other"), double), refused),
    "step by step": Scenario(lambda p: items(Workflow("unit").then(double).then(see), p), stepwise),
    "step by step at last": Scenario(lambda p: items(inner_ask, p), half_stepwise),
    "canceled at rest": Scenario(lambda p: items(inner_ask, p), canceled),
    "sent back": Scenario(lambda p: items(see, p), travelled),
    "sent back deep": Scenario(lambda p: deep(p, see), travelled),
    "forked": Scenario(lambda p: deep(p, see), forked),
    "sleeps": Scenario(sleeps),
}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_spread_or_in_place(noria: Noria, server_url: str, name: str) -> None:
    scenario = SCENARIOS[name]
    seen: list[Any] = []
    for placement in ("local", "spread"):
        flow = scenario.flow(placement).clone(id=f"f-{placement}").commit()
        async with (
            Noria.connect(server_url, namespace=noria.namespace) as other,
            noria.worker(flow, concurrency=4),
            other.worker(flow, concurrency=4),
        ):
            run = noria.create_run(flow, f"run-{placement}", resource_id="res")
            async with asyncio.timeout(60):
                told = await scenario.act(run)
                record = await run.get()
                events = await told_by(run.observe(close_on_suspend=True))
        assert record is not None
        seen.append(same(placement, told, record, events, scenario.loose))
    in_place, spread = seen
    for part in in_place:
        assert spread[part] == in_place[part], part


async def told_by(stream: RunStream) -> list[Any]:
    return [event async for event in stream]


def same(placement: str, told: Any, record: RunRecord, events: list[Any], loose: bool) -> dict[str, Any]:
    """All that must not depend on the placement, the run's name taken out."""
    shown: dict[str, Any] = {"told": told, **asdict(record)}
    if not loose:
        shown["events"], shown["order"] = told_in_order(events, placement)
    for name in ("state", "request_context", "steps") if loose else ():
        del shown[name]
    return neutral(shown, placement)


def told_in_order(events: list[Any], placement: str) -> Any:
    """What was told of each step, and in which order; of what siblings say themselves the order is anybody's."""
    by_step: dict[str, list[Any]] = {}
    for event in events:
        by_step.setdefault(f"{event.path} {event.step}", []).append([event.type, neutral(event.data, placement)])
    order = {step: [type for type, _ in told if type not in ANY_TIME] for step, told in by_step.items()}
    return {step: sorted(told, key=repr) for step, told in by_step.items()}, order


def neutral(value: Any, placement: str) -> Any:
    match value:
        case dict():
            of_many = SUSPENSION if isinstance(value.get("input"), list) else ()  # a foreach tells of one of its items, the last one
            return {k: neutral(v, placement) for k, v in value.items() if k not in (*TIMED, *of_many)}
        case list() | tuple():
            return [neutral(v, placement) for v in value]
        case str():
            return value.replace(f"f-{placement}", "f").replace(f"run-{placement}", "run")
        case _:
            return value

"""noria.testing as its users see it."""

from __future__ import annotations

import asyncio
import importlib
import time
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from noria import Context, Noria, Retry, Workflow, step
from noria.testing import CrashReport, crash_everywhere, simulated

pytest_plugins = ["noria.testing.pytest_plugin"]
charged: list[str] = []


@step
def add(x: int) -> int:
    return x + 1


@step
async def ask(x: int, ctx: Context) -> int:
    if ctx.resume_data is None:
        ctx.suspend({"x": x})
    return x + ctx.resume_data


@step
async def charge(x: int) -> int:
    charged.append(f"order {x}")
    return x


@step
async def charge_once(x: int, ctx: Context) -> int:
    if ctx.idempotency_key not in charged:
        charged.append(ctx.idempotency_key)
    return x


@step
async def count(x: int) -> int:
    charged.append("counted")
    return len(charged)


async def test_an_hour_takes_no_time() -> None:
    flow = Workflow("patient").then(add).sleep(3600).then(add.clone(id="last")).commit()
    begun = time.perf_counter()
    async with simulated(start=datetime(2030, 1, 1, tzinfo=UTC)) as noria, noria.worker(flow):
        result = await noria.run(flow, 1)
        events = [event.type async for event in noria.create_run(flow, result.run_id).observe()]
    assert (result.status, result.result) == ("success", 3)
    assert result.started_at == datetime(2030, 1, 1, tzinfo=UTC) and (result.ended_at - result.started_at).total_seconds() >= 3600
    assert "workflow-step-waiting" in events and events[-1] == "workflow-finish"
    assert time.perf_counter() - begun < 20


async def test_the_loop_is_in_earnest_again_afterwards() -> None:
    async with simulated():
        await asyncio.sleep(1000)
    begun = time.perf_counter()
    await asyncio.sleep(0.05)
    assert await asyncio.to_thread(lambda: 1) == 1
    assert 0.04 < time.perf_counter() - begun < 5


async def test_the_same_seed_makes_the_same_run(simulated_noria: Noria) -> None:
    flow = Workflow("same").then(add).commit()
    async with simulated_noria.worker(flow):
        first = await simulated_noria.run(flow, 1)
    async with simulated() as noria, noria.worker(flow):
        assert (await noria.run(flow, 1)).run_id == first.run_id
    async with simulated(seed=1) as noria, noria.worker(flow):
        assert (await noria.run(flow, 1)).run_id != first.run_id


async def test_suspend_list_delete_and_back_off_work_as_on_nats(simulated_noria: Noria) -> None:
    tries: list[int] = []

    @step(retry=Retry(attempts=2, delay=600))
    async def flaky(x: int, ctx: Context) -> int:
        tries.append(ctx.attempt)
        if ctx.attempt < 2:
            raise OSError("not yet")
        return x

    flow = Workflow("all").then(ask).then(flaky).commit()
    async with simulated_noria.worker(flow):
        run = simulated_noria.create_run(flow, "r")
        assert (await run.start(1)).status == "suspended"
        assert [r.status for r in (await simulated_noria.runs.list()).runs] == ["suspended"]
        assert (await run.resume(5)).result == 6
        assert tries == [0, 1, 2]
        await simulated_noria.runs.delete("r")
        assert await run.get() is None


async def test_large_values_and_steps_elsewhere_work_as_on_nats(simulated_noria: Noria) -> None:
    flow = Workflow("large").then(step(lambda x: x + "!", id="grow")).commit()
    async with simulated_noria.worker(flow, steps=False), simulated_noria.worker(flow, runs=False):
        assert (await simulated_noria.run(flow, "x" * 300_000)).result == "x" * 300_000 + "!"
        result = await simulated_noria.run(flow, "x" * 3_000_000, run_id="r")
        assert result.result == "x" * 3_000_000 + "!" and (await simulated_noria.runs.get("r")) is not None


async def test_crashes_show_the_step_that_is_not_idempotent() -> None:
    flow = Workflow("shop").then(add).then(charge).then(add.clone(id="last")).commit()
    report = await crash_everywhere(flow, 1, effects=lambda: list(charged), prepare=charged.clear)
    assert (report.status, report.result, report.effects) == ("success", 3, ["order 2"])
    assert len(report.crashes) == 6 and not report.disagreeing
    assert list(report.not_idempotent) == ["charge"]
    with pytest.raises(AssertionError, match=r"'charge' is not idempotent.*before append 2"):
        report.check()


async def test_crashes_clear_the_step_that_uses_its_key(crash_everywhere: Callable[..., Any]) -> None:
    flow = Workflow("careful").then(charge_once).then(ask).sleep(60).parallel(charge_once.clone(id="left"), add).commit()
    report: CrashReport = await crash_everywhere(flow, 1, answer=lambda s: s.payload["x"], effects=lambda: sorted(charged), prepare=charged.clear)
    assert report.status == "success" and any(crash.repeated for crash in report.crashes)
    report.check()


async def test_crashes_show_the_step_that_comes_to_something_else() -> None:
    flow = Workflow("counting").then(count).then(add).commit()
    report = await crash_everywhere(flow, 1, prepare=charged.clear)
    assert report.not_idempotent == {"count": "killed before append 1, it ran again and came to something else"}
    assert [(crash.append, crash.stored) for crash in report.disagreeing] == [(1, False)]


def test_the_plugin_is_found_by_pytest() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    (module,) = project["project"]["entry-points"]["pytest11"].values()
    assert {"simulated_noria", "crash_everywhere"} <= set(vars(importlib.import_module(module)))

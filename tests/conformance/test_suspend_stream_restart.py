"""Suspend and stream, area restart: logs of hosts that died, made by hand; whoever comes next goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from noria import Noria, NoWorker, Run, RunNotActive, RunResult, Workflow
from noria.clock import now
from noria.contract import commands, envelopes
from noria.contract.facts import Answered, Fact, FactMessage, Started, StepEnded
from noria.ports import ActorKey, Delivery
from tests.conformance.chains import counting, looping, nesting, prompting, shown
from tests.conformance.doubles import gives, outputs


async def interrupted(noria: Noria, flow: Workflow, input: Any, chains: dict[str, list[Fact]]) -> Run:
    """A run whose host died after it had recorded these facts on the chains of these paths."""
    run = noria.create_run(flow)
    await noria.broker.provision()
    key = ActorKey(flow.id, run.id)
    held: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
    receiver = await noria.broker.commands.receive(flow.id, 5, held.set_result, lambda: 0 if held.done() else 1)
    door = await noria.broker.commands.send(key, commands.encode(commands.Start("start", now(), input)), 0)
    async with asyncio.timeout(5):
        delivery = await held
    envelope = envelopes.Envelope(noria.namespace, flow.id, run.id)
    for path, chain in chains.items():
        message = FactMessage(chain, door if path == "" else 0, door, "dead", f"fact-{path}")
        await noria.broker.log.append(key._replace(path=path), envelope.encode(path, message), 0)
    await receiver.close()
    delivery.hand_back()
    return run


@asynccontextmanager
async def restarted(noria: Noria, flow: Workflow, run: Run) -> AsyncIterator[RunResult]:
    """What the run comes to by a restart that is sent before there is a worker."""
    result = asyncio.create_task(run.restart())
    async with asyncio.timeout(5):
        while len(await noria.broker.commands.read(ActorKey(flow.id, run.id))) < 2:
            await asyncio.sleep(0.01)
    async with noria.worker(flow, lease=5):
        yield await result


def started(input: Any) -> Started:
    return Started(input, None, now())


def ended(step: str, output: Any, **more: Any) -> StepEnded:
    return StepEnded(step, "success", now(), now(), output, **more)


@pytest.mark.row("restart-never-started", "fs-restart-not-active")
async def test_only_an_active_run_is_restarted(noria: Noria, calls: Counter[str]) -> None:
    flow = counting(calls)
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        with pytest.raises(RunNotActive, match="unknown; start"):
            await run.restart()
        assert (await run.start({"value": 0})).result == {"final": 4}
        with pytest.raises(RunNotActive, match="success"):
            await run.restart()
    assert calls == {"step1": 1, "step2": 1, "step3": 1}


@pytest.mark.row("restart-interrupted-single")
async def test_interrupted_in_its_only_step(noria: Noria, calls: Counter[str]) -> None:
    flow = Workflow("single").then(gives("counter", lambda data: {"count": calls["counter"], **data}, calls)).commit()
    run = await interrupted(noria, flow, {"value": 42}, {"": [started({"value": 42})]})
    async with restarted(noria, flow, run) as result:
        pass
    assert (result.status, result.result, calls) == ("success", {"count": 1, "value": 42}, {"counter": 1})


@pytest.mark.row("restart-multistep", "fs-restart-active")
async def test_finished_steps_are_not_repeated(noria: Noria, calls: Counter[str]) -> None:
    run = await interrupted(noria, counting(calls), {"value": 0}, {"": [started({"value": 0}), ended("step1", {"step1Result": 2})]})
    with pytest.raises(NoWorker):
        await run.restart(timeout=0.2)
    async with noria.worker(counting(calls), lease=5):
        assert await noria.runs.restart_active("counting") in ([run.id], []), "it may have ended by itself"
        result = await run.result(timeout=20)
    chain = {"step2": ({"step1Result": 2}, {"step2Result": 3}), "step3": ({"step2Result": 3}, {"final": 4})}
    assert (result.input, result.result) == ({"value": 0}, {"final": 4})
    assert shown(result.steps) == {"step1": ({"value": 0}, {"step1Result": 2}), **chain} and calls == {"step2": 1, "step3": 1}


@pytest.mark.row("restart-nested", "fs-restart-nested")
@pytest.mark.parametrize("begun", [True, False])
async def test_parent_and_nested_workflow_interrupted(noria: Noria, calls: Counter[str], begun: bool) -> None:
    flow, given = nesting(calls), {"step1Result": 2}
    inside = [started(given), ended("step2", {"step2Result": 3})] if begun else [started(given)]
    run = await interrupted(noria, flow, {}, {"": [started({}), ended("step1", given)], "nested": inside})
    async with restarted(noria, flow, run) as result:
        stored = await run.get()
    assert outputs(result) == {"step1": given, "nested": {"nestedFinal": 4}, "step4": {"final": 5}}
    assert calls == {"step3": 1, "step4": 1} | ({} if begun else {"step2": 1})
    assert stored is not None and stored.steps["nested"].status == "success" and list(stored.steps)[2:4] == ["nested.step2", "nested.step3"]


@pytest.mark.row("restart-then-suspend", "fs-restart-suspend")
async def test_a_restarted_run_suspends_and_is_resumed(noria: Noria, calls: Counter[str]) -> None:
    flow, given = prompting(calls), {"userInput": "test input"}
    run = await interrupted(noria, flow, {"input": "test"}, {"": [started({"input": "test"}), ended("getUserInput", given)]})
    async with restarted(noria, flow, run) as result:
        prompt = result.steps["promptAgent"]
        assert (result.status, prompt.status, prompt.suspend_payload) == ("suspended", "suspended", {"testPayload": "hello"})
        assert prompt.started_at and prompt.suspended_at and prompt.ended_at is None
        result = await run.resume(given, step="promptAgent")
        assert [s.path for s in result.suspended] == [("improveResponse",)]
        assert result.steps["promptAgent"].output == {"modelOutput": "test output"} and result.steps["evaluateTone"].status == "success"
        result = await run.resume({"scores": 1}, step=flow.units["improveResponse"])
    assert result.status == "success" and list(outputs(result))[-2:] == ["improveResponse", "evaluateImproved"]
    assert calls == {"promptAgent": 2, "evaluateTone": 1, "improveResponse": 2, "evaluateImproved": 1}


@pytest.mark.row("restart-parallel")
async def test_both_parallel_steps_were_running(noria: Noria, calls: Counter[str]) -> None:
    both = [gives("step1", lambda data: {"result": data["value"] * 2}, calls), gives("step2", lambda data: {"result": data["value"] + 10}, calls)]
    flow = Workflow("both").parallel(*both).commit()
    run = await interrupted(noria, flow, {"value": 5}, {"": [started({"value": 5})]})
    async with restarted(noria, flow, run) as result:
        pass
    assert outputs(result) == {"step1": {"result": 10}, "step2": {"result": 15}} and calls == {"step1": 1, "step2": 1}


@pytest.mark.row("fs-restart-loop")
async def test_inside_a_loops_body(noria: Noria, calls: Counter[str]) -> None:
    rounds: list[int] = []
    flow = looping(calls, rounds)
    passed = [Answered(f"body.{n}", False, n + 1) for n in range(1, 6)]
    inside = [started({"value": 5}), ended("increment", {"value": 6})]
    root = [started({"value": 0}), ended("first-step", {"value": 0}), *passed]
    run = await interrupted(noria, flow, {"value": 0}, {"": root, "body@6": inside})
    async with restarted(noria, flow, run) as result:
        pass
    body = result.steps["body"]
    assert (result.status, result.input, result.result) == ("success", {"value": 0}, {"value": 10})
    assert (body.input, body.output, body.iterations, rounds) == ({"value": 9}, {"value": 10}, 10, [6, 7, 8, 9, 10])


@pytest.mark.row("fs-restart-parallel")
async def test_only_the_running_members_run_again(noria: Noria, calls: Counter[str]) -> None:
    members = [gives(f"p{n}", {"n": n}, calls) for n in (1, 2, 3)]
    flow = Workflow("members").then(gives("initial", {"go": 1}, calls)).parallel(*members).then(gives("final", lambda data: data, calls)).commit()
    chains = {"": [started({}), ended("initial", {"go": 1})], "p1": [ended("p1", {"n": 1}, leaf=True)]}
    run = await interrupted(noria, flow, {}, chains)
    async with restarted(noria, flow, run) as result:
        pass
    assert result.steps["final"].input == {"p1": {"n": 1}, "p2": {"n": 2}, "p3": {"n": 3}}
    assert calls == {"p2": 1, "p3": 1, "final": 1}

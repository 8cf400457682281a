"""Random graphs, sent back: to any step that has a record, from what is stored, a run comes to the same end again, in a
fork too; to a step with an input, to what the interpreter makes of the rest. Whoever reads the log alone sees the same."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from noria import Noria, RunRecord, Workflow
from noria.actor.load import fold
from noria.machine.state import Tree
from noria.machine.view import view
from noria.ports import ActorKey
from tests.properties.batches import take_each
from tests.properties.graphs import graphs
from tests.properties.interpreter import Graph, Interpreter


@pytest.mark.timeout(300)
def test_a_run_that_is_sent_back_comes_to_the_same_end(server_url: str) -> None:
    with asyncio.Runner() as runner:
        phases, checks = [Phase.explicit, Phase.generate], list(HealthCheck)

        @settings(max_examples=6, deadline=None, derandomize=True, phases=phases, suppress_health_check=checks, database=None)
        @given(st.lists(graphs, min_size=20, max_size=20, unique_by=str), st.integers(0, 2**32))
        def check(batch: list[Graph], seed: int) -> None:
            runner.run(take_each(server_url, batch, seed, travel))

        check()


async def travel(noria: Noria, flow: Workflow, spec: Graph, chance: random.Random) -> None:
    run = noria.create_run(flow)
    await run.start(1, timeout=60)
    first = await run.get()
    assert first is not None
    if "bail" not in str(spec):  # of members that run one by one none begins after a bail
        await step_by_step(noria, flow, first)
    if first.status != "success":
        return
    targets = [id for id in first.steps if not id.rpartition(".")[2].startswith(("mapping-", "sleep-"))]
    for target in chance.sample(targets, min(2, len(targets))):
        async with asyncio.timeout(60):
            await run.time_travel(target)
            again = await run.get()
            fork = await run.fork(target, run_id=f"fork-{uuid.uuid4().hex}")
            await fork.result()
            forked = await fork.get()
        for found in (again, forked):
            assert found is not None and outcome(found) == outcome(first), (spec, target, found.error)
        await same_to_all(noria, flow.id, run.id, (spec, target))
        await same_to_all(noria, flow.id, fork.id, (spec, target))
    plain = [n for n, entry in enumerate(spec) if entry[0] == "then" and entry[1][0] == "step" and n > 0]
    if plain:
        index, given = chance.choice(plain), chance.randint(0, 50)
        result = await run.time_travel(spec[index][1][1], input=given)
        status, value, _ = Interpreter().run(spec[index:], given)
        assert (result.status, result.result if status == "success" else result.error and result.error.message) == (status, value), spec


async def step_by_step(noria: Noria, flow: Workflow, first: RunRecord) -> None:
    """A run that pauses after each step comes to the same end."""
    run = noria.create_run(flow)
    async with asyncio.timeout(60):
        result = await run.start(1, per_step=True)
        while result.status == "paused":
            result = await run.resume(per_step=True)
    found = await run.get()
    assert found is not None and found.status == first.status
    assert found.status == "failed" or outcome(found) == outcome(first)


def outcome(record: RunRecord) -> tuple[Any, ...]:
    return record.status, record.result, record.state, {id: (s.status, s.input, s.output, s.iterations) for id, s in record.steps.items()}


async def same_to_all(noria: Noria, workflow: str, run: str, what: Any) -> None:
    """The record's view is that of the log alone."""
    key, tree = ActorKey(workflow, run), Tree()
    for entry in sorted([*await noria.broker.log.read_tree(key), *await noria.broker.commands.read_tree(key)], key=lambda e: e.sequence):
        assert await fold(noria.broker, tree, entry) is None
    record = await noria.runs.get(run, workflow)
    assert record is not None
    shown = view(tree, workflow, run, nested=True)
    found = {id: (s["status"], s["input"], s.get("output"), s.get("iterations", 1)) for id, s in shown["steps"].items()}
    assert (shown["status"], shown["result"], shown["state"], found) == outcome(record), what

"""Random graphs whose steps suspend, on random journeys: resumed by label, path, index or at a guess, step by step for a while,
sent back from where they are, forked. In the end they come to what the interpreter says. 5 examples of 16 graphs each."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from noria import AmbiguousResume, Noria, Run, RunResult, Workflow
from tests.properties.batches import take_each
from tests.properties.graphs import asking_graphs
from tests.properties.interpreter import Graph, Interpreter, answer

MOST = 500  # turns of a journey
BACK = 3  # how often one run is sent back or forked


@pytest.mark.timeout(300)
def test_whatever_the_journey_the_end_is_the_same(server_url: str) -> None:
    with asyncio.Runner() as runner:
        phases, checks = [Phase.explicit, Phase.generate], list(HealthCheck)

        @settings(max_examples=5, deadline=None, derandomize=True, phases=phases, suppress_health_check=checks, database=None)
        @given(st.lists(asking_graphs, min_size=16, max_size=16, unique_by=str), st.integers(0, 2**32))
        def check(batch: list[Graph], seed: int) -> None:
            runner.run(take_each(server_url, batch, seed, lambda *given: Journey(*given).take(), workers=2))

        check()


class Journey:
    """One run, and what was asked of it."""

    def __init__(self, noria: Noria, flow: Workflow, spec: Graph, chance: random.Random) -> None:
        self.run: Run = noria.create_run(flow)
        self.spec, self.chance, self.asked = spec, chance, list[Any]()
        self.hurried = chance.random() < 0.7  # else step by step, mostly
        self.back = 0 if "fail" not in str(spec) and "bail" not in str(spec) else BACK  # what ran beside them is not told apart
        self.whole = self.hurried  # whether whatever runs side by side has begun: else a travel has to make it up

    async def take(self) -> None:
        interpreter = Interpreter()
        status, value, steps = interpreter.run(self.spec, 1)
        async with asyncio.timeout(100):
            result = await self.run.start(1, per_step=not self.hurried)
            for _ in range(MOST):
                record = await self.run.get()
                assert record is not None and (record.status, record.suspended) == (result.status, result.suspended), self.asked
                targets = [id for id in record.steps if not id.rpartition(".")[2].startswith(("mapping-", "sleep-"))]
                if result.status in ("suspended", "paused"):
                    result = await self.go_on(result, targets)
                    continue
                found = result.result if status == "success" else result.error and result.error.message
                assert (result.status, found, result.suspended) == (status, value, []), (self.spec, self.asked, result.error)
                if status == "success" and "bail" not in str(self.spec):  # of members that run one by one none begins after one
                    assert {id: s.status for id, s in result.steps.items() if id in targets} == steps, (self.spec, self.asked)
                    assert result.state == interpreter.state, (self.spec, self.asked)
                if self.back >= BACK or not targets:
                    return
                self.whole = True
                result = await self.send_back(targets)
        raise AssertionError(f"no end: {self.spec}, {self.asked}")

    async def go_on(self, result: RunResult, targets: list[str]) -> RunResult:
        if self.whole and targets and self.back < BACK and self.chance.random() < 0.25:
            return await self.send_back(targets)
        per_step = self.chance.random() < (0.1 if self.hurried else 0.5)
        self.whole = self.whole and not per_step
        if not result.suspended or (result.status == "paused" and self.chance.random() < 0.5):
            self.asked.append(("on", per_step))
            return await self.run.resume(per_step=per_step)
        wanted = self.chance.choice(result.suspended)
        data = {label: answer(label) for suspension in result.suspended for label in suspension.labels}
        how = self.chance.choice([{"label": wanted.labels[0]}, {"step": wanted.path}, {"step": ".".join(wanted.path), "index": wanted.index}, {}])
        self.asked.append((how, per_step))
        try:
            return await self.run.resume(data, per_step=per_step, **how)
        except AmbiguousResume:
            return await self.run.resume(data, per_step=per_step, label=wanted.labels[0])

    async def send_back(self, targets: list[str]) -> RunResult:
        target, forks, per_step = self.chance.choice(targets), self.chance.random() < 0.5, self.chance.random() < 0.1
        self.back, self.whole = self.back + 1, not per_step
        self.asked.append(("fork" if forks else "back", target, per_step))
        if not forks:
            return await self.run.time_travel(target, per_step=per_step)
        self.run = await self.run.fork(target, per_step=per_step)
        return await self.run.result()

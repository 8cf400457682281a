"""Random graphs: the engine comes to what the interpreter says. 32 examples of 20 graphs each, all at once on one worker, no two
of one example alike."""

from __future__ import annotations

import asyncio
import itertools
import uuid

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from noria import Noria
from tests.conftest import drop
from tests.properties.graphs import graphs, make_flow, named
from tests.properties.interpreter import Graph, Interpreter


@pytest.mark.timeout(300)
def test_the_engine_agrees_with_the_interpreter(server_url: str) -> None:
    with asyncio.Runner() as runner:
        different: set[str] = set()

        # no shrinking: a batch that fails is printed whole, and CI stays bounded
        phases, checks = [Phase.explicit, Phase.generate], list(HealthCheck)

        @settings(max_examples=32, deadline=None, derandomize=True, phases=phases, suppress_health_check=checks, database=None)
        @given(st.lists(graphs, min_size=20, max_size=20, unique_by=str))
        def check(batch: list[Graph]) -> None:
            different.update(map(str, batch))
            runner.run(compare(server_url, batch))

        check()
    assert len(different) >= 500


async def compare(server_url: str, batch: list[Graph]) -> None:
    specs = [named(graph, itertools.count()) for graph in batch]
    flows = [make_flow(f"w{n}", spec).commit() for n, spec in enumerate(specs)]
    async with Noria.connect(server_url, namespace=f"p{uuid.uuid4().hex[:12]}") as noria:
        async with noria.worker(*flows):
            results = await asyncio.gather(*(noria.run(flow, 1, timeout=60) for flow in flows))
        await drop(noria)
    for spec, result in zip(specs, results, strict=True):
        interpreter = Interpreter()
        status, value, steps = interpreter.run(spec, 1)
        note(f"{spec} -> {status} {value}")
        assert result.status == status, (spec, result.error)
        if status == "success":
            assert result.result == value, spec
        else:
            assert result.error is not None and result.error.message == value, spec
        shown = {k: v.status for k, v in result.steps.items() if not k.startswith(("mapping-", "sleep-"))}
        assert shown == steps, spec
        written = result.state
        if "foreach" not in str(spec) or (status == "success" and "bail" not in str(spec)):
            assert written == interpreter.state, spec



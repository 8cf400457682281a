"""Random graphs whose steps suspend: whoever resumes them in whatever order, from whatever process, they come to what the
interpreter says. 16 examples of 28 graphs each, no two of one example alike."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from noria import Noria
from tests.conftest import drop
from tests.properties import resumer
from tests.properties.graphs import asking_graphs, make_flow, named
from tests.properties.interpreter import Graph, Interpreter


@pytest.mark.timeout(300)
def test_resumed_in_any_order_the_engine_agrees_with_the_interpreter(server_url: str) -> None:
    with asyncio.Runner() as runner:
        batches = itertools.count()

        # no shrinking: a batch that fails is printed whole, and CI stays bounded
        phases, checks = [Phase.explicit, Phase.generate], list(HealthCheck)

        @settings(max_examples=16, deadline=None, derandomize=True, phases=phases, suppress_health_check=checks, database=None)
        @given(st.lists(asking_graphs, min_size=28, max_size=28, unique_by=str), st.integers(0, 10**6))
        def check(batch: list[Graph], seed: int) -> None:
            runner.run(compare(server_url, batch, seed, next(batches)))

        check()


async def compare(server_url: str, batch: list[Graph], seed: int, number: int) -> None:
    """Start on one worker, go on for a while on a fresh one, now and then in a fresh process, and to the end on a third."""
    specs = [named(graph, itertools.count()) for graph in batch]
    namespace = f"p{uuid.uuid4().hex[:12]}"
    async with Noria.connect(server_url, namespace=namespace) as noria:
        flows = [make_flow(f"w{n}", spec).commit() for n, spec in enumerate(specs)]
        async with noria.worker(*flows):
            await asyncio.gather(*(noria.run(flow, 1, run_id=f"r{n}", timeout=60) for n, flow in enumerate(flows)))
    job = {"url": server_url, "namespace": namespace, "specs": specs, "seed": seed, "most": 2}
    if number % 8 == 0:
        await in_another_process(job)
    else:
        await resumer.resume_all(**job)
    await resumer.resume_all(**{**job, "seed": seed + 1, "most": 1000})
    async with Noria.connect(server_url, namespace=namespace) as noria:
        for n, spec in enumerate(specs):
            result = await noria.create_run(f"w{n}", f"r{n}").result(timeout=10)
            interpreter = Interpreter()
            status, value, steps = interpreter.run(spec, 1)
            note(f"{spec} -> {status} {value}")
            assert (result.status, result.suspended) == (status, []), (spec, result.error)
            assert value == (result.result if status == "success" else result.error and result.error.message), spec
            assert {k: v.status for k, v in result.steps.items() if not k.startswith(("mapping-", "sleep-"))} == steps, spec
            if "foreach" not in str(spec) or (status == "success" and "bail" not in str(spec)):
                assert result.state == interpreter.state, spec
        await drop(noria)


async def in_another_process(job: dict[str, Any]) -> None:
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.properties.resumer", cwd=root, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(json.dumps(job).encode()), 60)
    assert process.returncode == 0 and json.loads(out)["resumes"] > 0



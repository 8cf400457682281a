"""Random graphs with retries, tolerant blocks and odd values: result, calls, tries and state are what the interpreter says.
40 graphs to a seed, all at once on one worker."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict

import pytest

from noria import Noria
from tests.properties.stubborn import VALUES, Artist, Interpreter, make_flow


@pytest.mark.parametrize("seed", range(6))
async def test_the_engine_tries_again_as_the_interpreter_does(noria: Noria, seed: int) -> None:
    artist = Artist(seed)
    graphs = [("flow", f"graph{n}", *artist.flow()[2:]) for n in range(40)]
    calls: dict[str, Counter[str]] = defaultdict(Counter)
    flows = [make_flow(graph, calls) for graph in graphs]
    given = [VALUES[n % len(VALUES)] for n in range(len(flows))]
    async with noria.worker(*flows):
        results = await asyncio.gather(*(noria.run(flow, x, run_id=flow.id, timeout=50) for flow, x in zip(flows, given, strict=True)))
    for graph, x, result in zip(graphs, given, results, strict=True):
        interpreter = Interpreter()
        status, value = interpreter.run(graph, x)
        came_to = result.result if result.error is None else result.error.message
        assert (result.status, repr(came_to)) == (status, repr(value)), graph
        assert calls[result.run_id] == interpreter.calls, graph
        assert result.state == interpreter.state, graph
        items = {entry[3][1] for entry in graph[2] if entry[0] == "foreach"}  # their tries are in their places
        shown = {id: (s.status, 1 if id in items else s.attempts, s.iterations) for id, s in result.steps.items() if id.startswith(("flow", "step"))}
        assert shown == interpreter.steps, graph

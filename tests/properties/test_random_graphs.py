"""Random graphs: the engine comes to what the interpreter says. 60 examples of 20 graphs each, all at once on one worker."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from noria import Context, Noria, Workflow, step
from tests.conftest import drop
from tests.properties.interpreter import Bailed, Graph, Interpreter, apply

small = st.integers(1, 4)
ops = st.sampled_from(["add", "add", "add", "keep", "fail", "bail"])
step_spec = st.tuples(st.just("step"), st.just(""), ops, small)
counting = st.tuples(st.just("step"), st.just(""), st.just("add"), small)


def entries(unit: st.SearchStrategy[Any], looped: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.tuples(st.just("then"), unit),
        st.tuples(st.just("then"), unit),
        st.tuples(st.just("map"), small),
        st.tuples(st.just("sleep")),
        st.tuples(st.just("parallel"), st.lists(unit, min_size=1, max_size=3)),
        st.tuples(st.just("branch"), st.lists(st.tuples(small, unit), min_size=1, max_size=3)),
        st.tuples(st.just("foreach"), unit, st.integers(0, 4), small),
        st.tuples(st.just("loop"), looped, st.integers(1, 6), st.booleans()),
    )


def flow_of(unit: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.just("flow"), st.just(""), st.lists(entries(unit, counting), min_size=1, max_size=3))


inner = flow_of(step_spec)
middle = flow_of(st.one_of(step_spec, inner))
graphs = st.lists(entries(st.one_of(step_spec, step_spec, middle), counting), min_size=1, max_size=5)


def named(spec: Any, ids: Any) -> Any:
    """The same spec with an id of its own for every unit."""
    if isinstance(spec, tuple) and len(spec) >= 3 and spec[0] in ("step", "flow") and spec[1] == "":
        return (spec[0], f"{spec[0]}{next(ids)}", *(named(part, ids) for part in spec[2:]))
    if isinstance(spec, (list, tuple)):
        return type(spec)(named(part, ids) for part in spec)
    return spec


def make_step(id: str, op: str, k: int) -> Any:
    async def work(x: int, ctx: Context) -> int:
        writes: dict[str, int] = {}
        try:
            return apply(id, op, k, x, writes)
        except Bailed as bail:
            ctx.bail(bail.value)
        finally:
            ctx.set_state(writes)

    return step(work, id=id)


def make_unit(spec: Any) -> Any:
    return make_step(*spec[1:]) if spec[0] == "step" else make_flow(spec[1], spec[2])


def make_flow(id: str, graph: Graph) -> Workflow:
    flow = Workflow(id)
    for entry in graph:
        match entry:
            case ("then", unit):
                flow = flow.then(make_unit(unit))
            case ("map", k):
                flow = flow.map(times(k))
            case ("sleep",):
                flow = flow.sleep(0)
            case ("parallel", units):
                flow = flow.parallel(*[make_unit(u) for u in units]).map(total)
            case ("branch", arms):
                flow = flow.branch(*[(divides(k), make_unit(u)) for k, u in arms]).map(total)
            case ("foreach", unit, n, concurrency):
                flow = flow.map(spread_out(n)).foreach(make_unit(unit), concurrency=concurrency).map(sum)
            case ("loop", unit, rounds, until):
                flow = flow.map(remember(unit[1], rounds))
                loop = flow.do_until if until else flow.do_while
                flow = loop(make_unit(unit), reached(unit[1], until))
    return flow


def times(k: int) -> Any:
    return lambda x: x * k


def total(outputs: dict[str, int]) -> int:
    return sum(outputs.values())


def divides(k: int) -> Any:
    return lambda x: x % k == 0


def spread_out(n: int) -> Any:
    return lambda x: list(range(x, x + n))


def remember(id: str, rounds: int) -> Any:
    def goal(x: int, ctx: Context) -> int:
        ctx.request_context[f"{ctx.path}{id}"] = x + rounds
        return x

    return goal


def reached(id: str, until: bool) -> Any:
    return lambda x, ctx: (x >= ctx.request_context[f"{ctx.path}{id}"]) == until


@pytest.mark.timeout(300)
def test_the_engine_agrees_with_the_interpreter(server_url: str) -> None:
    with asyncio.Runner() as runner:

        # no shrinking: a batch that fails is printed whole, and CI stays bounded
        phases, checks = [Phase.explicit, Phase.generate], list(HealthCheck)

        @settings(max_examples=60, deadline=None, derandomize=True, phases=phases, suppress_health_check=checks, database=None)
        @given(st.lists(graphs, min_size=20, max_size=20))
        def check(batch: list[Graph]) -> None:
            runner.run(compare(server_url, batch))

        check()


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



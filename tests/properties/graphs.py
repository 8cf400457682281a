"""Random graphs: how they are drawn, and how a graph becomes a workflow."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from noria import Context, Workflow, step
from tests.properties.interpreter import Bailed, Graph, apply, questions

small = st.integers(1, 4)
ops = st.sampled_from(["add", "add", "add", "keep", "fail", "bail"])
step_spec = st.tuples(st.just("step"), st.just(""), ops, small)
counting = st.tuples(st.just("step"), st.just(""), st.just("add"), small)


def entries(unit: st.SearchStrategy[Any], looped: st.SearchStrategy[Any], *, most: int = 4) -> st.SearchStrategy[Any]:
    """An entry of units; loops go on with `looped`. A foreach has up to `most` items."""
    return st.one_of(
        st.tuples(st.just("then"), unit),
        st.tuples(st.just("then"), unit),
        st.tuples(st.just("map"), small),
        st.tuples(st.just("sleep")),
        st.tuples(st.just("parallel"), st.lists(unit, min_size=1, max_size=3)),
        st.tuples(st.just("branch"), st.lists(st.tuples(small, unit), min_size=1, max_size=3)),
        st.tuples(st.just("foreach"), unit, st.integers(0, most), small),
        st.tuples(st.just("loop"), looped, st.integers(1, most + 2), st.booleans()),
    )


def flow_of(unit: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.just("flow"), st.just(""), st.lists(entries(unit, counting), min_size=1, max_size=3))


inner = flow_of(step_spec)
middle = flow_of(st.one_of(step_spec, inner))
graphs = st.lists(entries(st.one_of(step_spec, step_spec, middle), counting), min_size=1, max_size=5)

# Steps that ask fail nothing and bail nowhere, nor do those beside them: what comes first would depend on who answers first.
asking = st.tuples(st.just("step"), st.just(""), st.sampled_from(["ask", "ask", "add", "keep"]), small)
asking_body = st.tuples(st.just("flow"), st.just(""), st.lists(st.tuples(st.just("then"), st.one_of(asking, counting)), min_size=1, max_size=2))
asking_round = st.one_of(
    st.tuples(st.just("step"), st.just(""), st.just("ask"), small),
    asking_body.map(lambda flow: (*flow[:2], [*flow[2], ("then", ("step", "", "add", 1))])),
)
asking_inner = st.tuples(st.just("flow"), st.just(""), st.lists(entries(asking, asking_round, most=3), min_size=1, max_size=2))
asking_middle = st.tuples(
    st.just("flow"), st.just(""), st.lists(entries(st.one_of(asking, asking_inner), asking_round, most=3), min_size=1, max_size=2)
)
asking_graphs = st.lists(
    st.one_of(entries(st.one_of(asking, asking_middle), asking_round, most=3), entries(step_spec, counting)), min_size=1, max_size=4
).filter(lambda graph: "'ask'" in str(graph))


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


def make_asking(id: str, k: int) -> Any:
    """Each question is a suspension, labelled by itself; its payload are the answers so far."""

    async def asks(x: int, ctx: Context) -> int:
        known: list[int] = list(ctx.suspend_data or [])
        labels = questions(id, k, x)
        if ctx.resume_data is not None:
            known.append(ctx.resume_data[labels[len(known)]])
        if len(known) < len(labels):
            ctx.set_state({labels[len(known)]: len(known)})
            ctx.suspend(known, label=labels[len(known)])
        ctx.set_state({f"{id}@{x}": x})
        return x + k + sum(known)

    return step(asks, id=id)


def make_unit(spec: Any) -> Any:
    if spec[0] == "flow":
        return make_flow(spec[1], spec[2])
    return make_asking(spec[1], spec[3]) if spec[2] == "ask" else make_step(*spec[1:])


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
                flow = flow.parallel(*[make_unit(u) for u in units], placement=placement(units[0][1])).map(total)
            case ("branch", arms):
                flow = flow.branch(*[(divides(k), make_unit(u)) for k, u in arms]).map(total)
            case ("foreach", unit, n, concurrency):
                flow = flow.map(spread_out(n)).foreach(make_unit(unit), concurrency=concurrency, placement=placement(unit[1])).map(sum)
            case ("loop", unit, rounds, until):
                flow = flow.map(remember(unit[1], rounds))
                loop = flow.do_until if until else flow.do_while
                flow = loop(make_unit(unit), reached(unit[1], until))
    return flow


def placement(id: str) -> Any:
    """One block in four has its members spread over the cluster."""
    return "spread" if sum(id.encode()) % 4 == 0 else "auto"


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
        ctx.request_context[f"{place(ctx)}{id}"] = x + rounds
        return x

    return goal


def place(ctx: Context) -> str:
    """Where it stands in the graph, in whatever life."""
    return ".".join(segment.partition("@")[0] for segment in ctx.path)


def reached(id: str, until: bool) -> Any:
    return lambda x, ctx: (x >= ctx.request_context[f"{place(ctx)}{id}"]) == until

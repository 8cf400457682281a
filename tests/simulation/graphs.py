"""Random workflows with steps that suspend, fail once, take time; what the direct interpreter says of them."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Any

from noria import Context, Retry, Workflow, step
from tests.properties.graphs import divides, named, reached, remember, spread_out, times, total
from tests.properties.interpreter import Bailed, Graph, Interpreter, apply

# a block with a failure and a suspension ends without its answer: another result than the interpreter's, so never both
OPS = (["ask", "ask", "flaky", "slow"], ["flaky", "slow", "fail", "fail"], ["flaky", "slow", "bail", "bail"])
# whoever answers first, a failure fails the run, if perhaps another one than the interpreter's; a bail is a result
MIXED = (["ask", "ask", "fail"], ["ask", "moody", "moody"], ["ask", "flaky", "moody", "fail"], ["moody", "slow", "bail"])
PLAIN = ("ask", "flaky", "slow")  # to the interpreter these are additions
ADDITIONS = (*PLAIN, "moody")
DEPTH = 2


def graph(chance: random.Random, mixed: bool = False, wide: bool = False) -> Graph:
    """A spec as the interpreter reads it, sleeps with their seconds, blocks with their placement."""
    ops = ["add", "add", "keep", *chance.choice(MIXED if mixed else OPS)]
    entries = [_entry(chance, ops, DEPTH) for _ in range(chance.randint(1, 4))]
    if wide:
        entries[chance.randrange(len(entries))] = _elsewhere(chance, ops)
    return named(entries, itertools.count())


def _elsewhere(chance: random.Random, ops: list[str]) -> Any:
    """A block of nested workflows that live elsewhere, with sleeps, questions and blocks below them."""
    units = [("flow", "", [_entry(chance, ops, DEPTH - 1) for _ in range(chance.randint(1, 3))]) for _ in range(chance.randint(1, 3))]
    if len(units) > 1:
        return ("parallel", units, "spread")
    return ("foreach", units[0], chance.randint(2, 4), chance.randint(1, 4), "spread")


def _unit(chance: random.Random, ops: list[str], depth: int) -> Any:
    if depth and chance.random() < (0.5 if "moody" in ops else 0.25):
        return ("flow", "", [_entry(chance, ops, depth - 1) for _ in range(chance.randint(1, 2))])
    op = chance.choice(ops)
    return ("step", "", "add" if op == "moody" and depth == DEPTH else op, chance.randint(1, 4))  # nobody tries the whole run again


def _entry(chance: random.Random, ops: list[str], depth: int) -> Any:
    small = chance.randint(1, 4)
    counting = ("step", "", chance.choice([op for op in ops if op in ("add", *PLAIN)]), chance.randint(1, 4))
    if depth and chance.random() < 0.2:
        counting = ("flow", "", [("then", counting)])
    placement = chance.choice(["auto", "local", "spread"])
    match chance.choice(["then", "then", "map", "sleep", "parallel", "branch", "foreach", "foreach", "loop"]):
        case "then":
            return ("then", _unit(chance, ops, depth))
        case "map":
            return ("map", small)
        case "sleep":
            return ("sleep", chance.choice([0, 1, 7, 7, 300]))
        case "parallel":
            return ("parallel", [_unit(chance, ops, depth) for _ in range(chance.randint(1, 3))], placement)
        case "branch":
            return ("branch", [(chance.randint(1, 4), _unit(chance, ops, depth)) for _ in range(chance.randint(1, 3))])
        case "foreach":
            return ("foreach", _unit(chance, ops, depth), chance.randint(0, 4), small, placement)
        case _:
            return ("loop", counting, chance.randint(1, 6), chance.random() < 0.5)


Outcome = tuple[str, Any, dict[str, int] | None]  # status, result or error text, state; None: of several lives


def expected(spec: Graph, given: int = 1, begin: int = 0) -> Outcome:
    """What a run of it must come to that begins at the entry `begin` with an input."""
    interpreter = Interpreter()
    status, value, _ = interpreter.run(_plain(spec[begin:]), given)
    return status, value, None if begin else interpreter.state


def plain_steps(spec: Graph) -> dict[str, int]:
    """The steps on the outermost level by id, with the index of their entry."""
    return {entry[1][1]: n for n, entry in enumerate(spec) if entry[0] == "then" and entry[1][0] == "step"}


def _plain(spec: Any) -> Any:
    if isinstance(spec, tuple):
        match spec:
            case ("step", id, op, k):
                return ("step", id, "add" if op in ADDITIONS else op, k)
            case ("sleep", _):
                return ("sleep",)
            case ("parallel", units, _):
                return ("parallel", _plain(units))
            case ("foreach", unit, n, concurrency, _):
                return ("foreach", _plain(unit), n, concurrency)
        return tuple(_plain(part) for part in spec)
    return [_plain(part) for part in spec] if isinstance(spec, list) else spec


Executed = Callable[[Context], None]


def make_flow(id: str, spec: Graph, executed: Executed) -> Workflow:
    """The workflow of a spec; `executed` hears of every call of a step. With moody steps nested workflows are tried again."""
    return _flow(id, spec, executed, "'moody'" in str(spec))


def _flow(id: str, spec: Graph, executed: Executed, retries: bool) -> Workflow:
    flow = Workflow(id, retry=Retry(attempts=1, delay=0.5 if len(spec) % 2 else 4.0) if retries else Retry())
    for entry in spec:
        match entry:
            case ("then", unit):
                flow = flow.then(_make(unit, executed, retries))
            case ("map", k):
                flow = flow.map(times(k))
            case ("sleep", seconds):
                flow = flow.sleep(seconds)
            case ("parallel", units, placement):
                flow = flow.parallel(*[_make(u, executed, retries) for u in units], placement=placement).map(total)
            case ("branch", arms):
                flow = flow.branch(*[(divides(k), _make(u, executed, retries)) for k, u in arms]).map(total)
            case ("foreach", unit, n, concurrency, placement):
                flow = flow.map(spread_out(n)).foreach(_make(unit, executed, retries), concurrency=concurrency, placement=placement).map(sum)
            case ("loop", unit, rounds, until):
                flow = flow.map(remember(unit[1], rounds))
                loop = flow.do_until if until else flow.do_while
                flow = loop(_make(unit, executed, retries), reached(unit[1], until))
            case _:
                raise AssertionError(entry)
    return flow


def _make(unit: Any, executed: Executed, retries: bool) -> Any:
    if unit[0] == "flow":
        return _flow(unit[1], unit[2], executed, retries)
    _, id, op, k = unit

    async def work(x: int, ctx: Context) -> int:
        executed(ctx)
        if op == "ask" and ctx.resume_data is None:
            ctx.suspend({"k": k})
        if op == "slow":
            await asyncio.sleep(0.7 * k)
        if op == "flaky" and ctx.attempt == 0:
            raise OSError("the first time it fails")
        if op == "moody" and "@" not in ctx.idempotency_key:
            raise OSError("it fails in the first life of what is around it")
        writes: dict[str, int] = {}
        try:
            result = apply(id, "add" if op in ADDITIONS else op, k, x, writes)
        except Bailed as bail:
            ctx.bail(bail.value)
        finally:
            ctx.set_state(writes)
        return result - k + ctx.resume_data if op == "ask" else result

    retry = Retry(attempts=1, delay=0.5 if k % 2 else 4.0) if op == "flaky" else Retry() if op == "moody" else None
    return step(work, id=id, retry=retry)

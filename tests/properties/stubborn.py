"""Random graphs of steps that fail and are tried again: how they are drawn, what they must come to, and how they become workflows.

A unit is ("step", id, op, value, k, tries) or ("flow", id, entries, tries); `tries` are those of its Retry, None where the workflow
around says. Where a call happens ("flow1/flow3=2/step7": item 2 of a foreach) it counts its calls; a stubborn step fails its first k.
"""

from __future__ import annotations

import itertools
from collections import Counter
from random import Random
from typing import Any

from noria import Context, NonRetryable, Retry, Workflow, computed, from_input, step, value

VALUES = [None, 0, "", False, [], {}, 1, "a", [1, None], {"k": []}, 2.5]
OPS = ["echo", "gives", "wraps", "writes", "stubborn", "stubborn", "stubborn", "fails", "hopeless", "bails"]
PLACEMENTS = ["auto", "auto", "spread", "local"]


class Failed(Exception):
    def __init__(self, text: str, hopeless: bool = False) -> None:
        super().__init__(text)
        self.text, self.hopeless = text, hopeless


class Bailed(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


class Artist:
    """Draws graphs."""

    def __init__(self, seed: int) -> None:
        self.chance, self.ids = Random(seed), itertools.count()

    def name(self, kind: str) -> str:
        return f"{kind}{next(self.ids)}"

    def flow(self, depth: int = 0) -> Any:
        entries = [self.entry(depth + 1) for _ in range(self.chance.randint(1, 3))]
        return ("flow", self.name("flow"), entries, self.chance.choice([None, None, 1, 2]))

    def unit(self, depth: int) -> Any:
        if depth < 3 and self.chance.random() < 0.45:
            return self.flow(depth)
        pick = self.chance.choice
        return ("step", self.name("step"), pick(OPS), pick(VALUES), self.chance.randint(1, 3), pick([None, None, 0, 1, 2, 3]))

    def units(self, depth: int) -> list[Any]:
        return [self.unit(depth) for _ in range(self.chance.randint(1, 3))]

    def entry(self, depth: int) -> Any:
        chance = self.chance
        match chance.choice(["then", "then", "parallel", "branch", "foreach", "foreach", "loop", "map", "sources", "sleep"]):
            case "then":
                return ("then", self.unit(depth))
            case "parallel":
                return ("parallel", self.units(depth), chance.random() < 0.4, chance.choice(PLACEMENTS))
            case "branch":
                return ("branch", [(chance.random() < 0.7, unit) for unit in self.units(depth)])
            case "foreach":
                items = [chance.choice(VALUES) for _ in range(chance.randint(0, 4))]
                return ("foreach", self.name("map"), items, self.unit(depth), chance.choice(PLACEMENTS))
            case "loop":
                return ("loop", self.unit(depth), chance.randint(1, 3), chance.random() < 0.5)
            case "map":
                return ("map", self.name("map"), chance.choice(VALUES))
            case kind:
                return (kind, self.name("map"))


def apply(op: str, given: Any, k: int, x: Any, place: str, call: int) -> tuple[Any, dict[str, int]]:
    """What a call of a step gives and writes; the engine's steps do the same."""
    match op:
        case "gives":
            return given, {}
        case "wraps":
            return [x], {}
        case "writes":
            return x, {place: call}
        case "stubborn" if call <= k:
            raise Failed(f"{place}, call {call}")
        case "stubborn":
            return given, {place: call}
        case "fails" | "hopeless":
            raise Failed(f"{place} {op}", op == "hopeless")
        case "bails":
            raise Bailed(given)
        case _:
            return x, {}


class Interpreter:
    """Runs one graph; `steps` are (status, tries, rounds) by unit of the outermost workflow."""

    def __init__(self) -> None:
        self.state: dict[str, int] = {}
        self.calls: Counter[str] = Counter()
        self.steps: dict[str, tuple[str, int, int]] = {}

    def run(self, flow: Any, x: Any) -> tuple[str, Any]:
        try:
            return "success", self.flow(flow, x, "", self.steps)
        except Failed as error:
            return "failed", error.text

    def flow(self, flow: Any, x: Any, above: str, steps: dict[str, Any]) -> Any:
        given, (_, _, entries, tries) = x, flow
        try:
            for entry in entries:
                x = self.entry(entry, x, given, above, tries or 0, steps)
        except Bailed as bail:
            return bail.value
        return x

    def unit(self, unit: Any, x: Any, above: str, retries: int, steps: dict[str, Any], rounds: int = 1, item: str = "") -> Any:
        kind, id, *spec = unit
        allowed = retries if kind == "flow" or spec[-1] is None else spec[-1]
        for tried in itertools.count(1):
            try:
                inside = f"{above}{id}{item}/" if kind == "flow" else f"{above}{item and item + '/'}{id}"
                out = self.flow(unit, x, inside, {}) if kind == "flow" else self.step(spec, x, inside)
            except Failed as error:
                if error.hopeless or tried > allowed:
                    steps[id] = ("failed", tried, rounds)
                    raise
            except Bailed:
                steps[id] = ("success", tried, rounds)
                raise
            else:
                steps[id] = ("success", tried, rounds)
                return out
        raise AssertionError

    def step(self, spec: list[Any], x: Any, place: str) -> Any:
        self.calls[place] += 1
        out, writes = apply(spec[0], spec[1], spec[2], x, place, self.calls[place])
        self.state.update(writes)
        return out

    def entry(self, entry: Any, x: Any, given: Any, above: str, retries: int, steps: dict[str, Any]) -> Any:
        match entry:
            case ("then", unit):
                return self.unit(unit, x, above, retries, steps)
            case ("parallel", units, tolerant, _):
                return self.members(units, x, above, retries, steps, tolerant)
            case ("branch", arms):
                return self.members([unit for taken, unit in arms if taken], x, above, retries, steps, False)
            case ("foreach", _, items, unit, _):
                return self.items(items, unit, above, retries, steps)
            case ("loop", unit, rounds, _):
                for n in range(rounds):
                    x = self.unit(unit, x, above, retries, steps, n + 1)
                return x
            case ("map", _, constant):
                return constant
            case ("sources", _):
                return {"given": given, "before": x, "constant": [0]}
            case _:
                return x

    def members(self, units: list[Any], x: Any, above: str, retries: int, steps: dict[str, Any], tolerant: bool) -> Any:
        """All of them run to their end; then the first failure counts, then the first bail."""
        outputs: dict[str, Any] = {}
        failures: list[Exception] = []
        bails: list[Exception] = []
        for unit in units:
            try:
                outputs[unit[1]] = self.unit(unit, x, above, retries, steps)
            except Failed as error:
                outputs[unit[1]] = None
                failures.append(error)
            except Bailed as bail:
                bails.append(bail)
        for end in [*([] if tolerant else failures), *bails]:
            raise end
        return outputs

    def items(self, items: list[Any], unit: Any, above: str, retries: int, steps: dict[str, Any]) -> list[Any]:
        status = "failed"
        try:
            outputs = [self.unit(unit, item, above, retries, {}, item=f"={n}") for n, item in enumerate(items)]
            status = "success"
        except Bailed:
            status = "success"
            raise
        finally:
            steps[unit[1]] = (status, 1, 1)
        return outputs


def make_flow(flow: Any, calls: dict[str, Counter[str]]) -> Workflow:
    """`calls` counts by run id."""
    _, id, entries, tries = flow
    made = Workflow(id, retry=Retry(attempts=tries or 0))
    for entry in entries:
        match entry:
            case ("then", unit):
                made = made.then(make_unit(unit, calls))
            case ("parallel", units, tolerant, placement):
                made = made.parallel(*(make_unit(u, calls) for u in units), allow_failure=tolerant, placement=placement)
            case ("branch", arms):
                made = made.branch(*((always(taken), make_unit(u, calls)) for taken, u in arms))
            case ("foreach", name, items, unit, placement):
                made = made.map(always(items), id=name).foreach(make_unit(unit, calls), placement=placement)
            case ("loop", unit, rounds, until):
                again = made.do_until if until else made.do_while
                made = again(make_unit(unit, calls), in_round(rounds, until))
            case ("map", name, constant):
                made = made.map(always(constant), id=name)
            case ("sources", name):
                made = made.map({"given": from_input(), "before": computed(lambda x: x), "constant": value([0])}, id=name)
            case _:
                made = made.sleep(0)
    return made


def always(given: Any) -> Any:
    return lambda: given


def in_round(last: int, until: bool) -> Any:
    return lambda ctx: (ctx.iteration >= last) == until


def make_unit(unit: Any, calls: dict[str, Counter[str]]) -> Any:
    if unit[0] == "flow":
        return make_flow(unit, calls)
    _, id, op, given, k, tries = unit

    async def work(x: Any, ctx: Context) -> Any:
        where, counted = place(id, ctx.path), calls[ctx.run_id]
        counted[where] += 1
        try:
            out, writes = apply(op, given, k, x, where, counted[where])
        except Bailed as bail:
            ctx.bail(bail.value)
        except Failed as error:
            ctx.set_state({where: "of a try that failed"})
            raise NonRetryable(error.text) if error.hopeless else RuntimeError(error.text) from error
        ctx.set_state(writes)
        return out

    return step(work, id=id, retry=None if tries is None else Retry(attempts=tries))


def place(id: str, path: tuple[str, ...]) -> str:
    """Where a step stands, whatever the lives of the workflows around it; a member's own actor is no place of its own."""
    segments = [segment.partition("@")[0] for segment in path]
    own, _, index = segments[-1].partition("=") if segments else ("", "", "")
    if own == id:
        segments = [*segments[:-1], *([f"={index}"] if index else [])]
    return "/".join([*segments, id])

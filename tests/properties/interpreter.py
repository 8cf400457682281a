"""A direct interpreter of graphs: what a run must come to, written from api.md without looking at the engine.

A graph is a list of entries; a unit is ("step", id, op, k) or ("flow", id, graph). Values are whole numbers.
"""

from __future__ import annotations

from typing import Any

Graph = list[tuple[Any, ...]]


class Failed(Exception):
    """The workflow failed."""


class Bailed(Exception):
    """The innermost workflow ended early, successfully."""

    def __init__(self, value: int) -> None:
        self.value = value


def apply(id: str, op: str, k: int, x: int, state: dict[str, int]) -> int:
    """One call of a step; the engine's steps do the same."""
    state[f"{id}@{x}"] = x
    if op == "fail" and x % k == 0:
        del state[f"{id}@{x}"]
        raise Failed(f"{id} does not like {x}")
    if op == "bail" and x % k == 0:
        raise Bailed(x * 100)
    if op == "ask":
        labels = questions(id, k, x)
        state.update({label: n for n, label in enumerate(labels)})
        return x + k + sum(answer(label) for label in labels)
    return x + k if op == "add" else x


def questions(id: str, k: int, x: int) -> list[str]:
    """What a step asks before it goes on: once or twice."""
    return [f"{id}?{x}.{n}" for n in range(1 + k % 2)]


def answer(question: str) -> int:
    """What whoever is asked says."""
    return sum(question.encode()) % 3 + 1


class Interpreter:
    """Runs one graph; `state` is shared by all that is nested in it."""

    def __init__(self) -> None:
        self.state: dict[str, int] = {}

    def run(self, graph: Graph, x: int) -> tuple[str, Any, dict[str, str]]:
        """(status, result or error text, status of each step)."""
        steps: dict[str, str] = {}
        try:
            for entry in graph:
                x = self.entry(entry, x, steps)
        except Bailed as bail:
            return "success", bail.value, steps
        except Failed as error:
            return "failed", str(error), steps
        return "success", x, steps

    def unit(self, unit: tuple[Any, ...], x: int, steps: dict[str, str]) -> int:
        kind, id, *rest = unit
        if kind == "flow":
            status, value, _ = self.run(rest[0], x)
            steps[id] = status
            if status == "failed":
                raise Failed(value)
            return value
        try:
            value = apply(id, rest[0], rest[1], x, self.state)
        except Failed:
            steps[id] = "failed"
            raise
        except Bailed:
            steps[id] = "success"
            raise
        steps[id] = "success"
        return value

    def members(self, units: list[tuple[Any, ...]], x: int, steps: dict[str, str]) -> dict[str, int]:
        """All of them run to their end; then the first failure counts, then the first bail."""
        outputs, failures, bails = {}, [], []
        for unit in units:
            try:
                outputs[unit[1]] = self.unit(unit, x, steps)
            except Failed as error:
                failures.append(error)
            except Bailed as bail:
                bails.append(bail)
        for end in [*failures, *bails]:
            raise end
        return outputs

    def entry(self, entry: tuple[Any, ...], x: int, steps: dict[str, str]) -> int:
        match entry:
            case ("then", unit):
                return self.unit(unit, x, steps)
            case ("map", k):
                return x * k
            case ("sleep",):
                return x
            case ("parallel", units):
                return sum(self.members(units, x, steps).values())
            case ("branch", arms):
                return sum(self.members([u for k, u in arms if x % k == 0], x, steps).values())
            case ("foreach", unit, n, _):
                steps[unit[1]] = "failed"
                outputs = []
                for item in range(x, x + n):
                    try:
                        outputs.append(self.unit(unit, item, {}))
                    except Bailed:
                        steps[unit[1]] = "success"
                        raise
                steps[unit[1]] = "success"
                return sum(outputs)
            case ("loop", unit, rounds, _):
                goal = x + rounds
                while True:
                    x = self.unit(unit, x, steps)
                    if x >= goal:
                        return x
        raise AssertionError(entry)

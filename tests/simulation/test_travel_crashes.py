"""Time travel of a run that ended, with the worker killed before and after everything that it asks of the server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import pytest

from noria import Context, Noria, Step, Workflow, step
from noria.contract import envelopes
from noria.contract.facts import Fact, Rewound, StepEnded, TakenOver
from noria.ports import ActorKey
from noria.testing.loop import NOWHERE, Process, VirtualLoop, run
from noria.testing.memory import MemoryBroker
from noria.testing.server import Server
from noria.testing.wire import Wire

T = TypeVar("T")
LEASE = 5.0
RUN = ActorKey("w", "r")
UNCOUNTED = ("live", "wish", "unfollow", "leave")  # what changes nothing that lasts


class Killer:
    """Kills the first worker at its `at`th word to the server (from 1) since it was armed, before it arrives or after."""

    def __init__(self, at: int, arrives: bool) -> None:
        self.at, self.arrives = at, arrives
        self.said: list[str] | None = None  # since it was armed

    def due(self, name: str) -> bool:
        if self.said is None or name in UNCOUNTED:
            return False
        self.said.append(name)
        return len(self.said) == self.at


class MortalWire(Wire):
    """Its owner may die at every word."""

    def __init__(self, killer: Killer, kill: Callable[[Wire], None]) -> None:
        super().__init__()
        self._killer, self._kill = killer, kill

    def request(self, name: str, operation: Callable[[], T]) -> asyncio.Future[T]:
        self._dies(name, operation)
        return super().request(name, operation)

    def send(self, name: str, operation: Callable[[], object]) -> None:
        self._dies(name, operation)
        super().send(name, operation)

    def _dies(self, name: str, operation: Callable[[], object]) -> None:
        if not self.is_cut and self._killer.due(name):
            if self._killer.arrives:
                operation()
            self._kill(self)


class Case(NamedTuple):
    """`steps` run again, in this order."""

    flow: Callable[[Counter[str]], Workflow]
    target: str
    result: object
    steps: tuple[str, ...]


class Lived(NamedTuple):
    """What came of it; `log`: the facts from the time travel on."""

    status: str
    result: object
    executions: dict[str, int]
    log: list[Fact]
    said: list[str]


def lived(case: Case, at: int = 0, arrives: bool = False) -> Lived:
    """A run that ended goes on from another step, by a worker that dies once."""
    executions, killer = Counter[str](), Killer(at, arrives)
    result, log = run(lambda loop: travelled(loop, case, executions, killer), 0)
    assert killer.said is not None
    return Lived(*result, dict(executions), log, killer.said)


async def travelled(
    loop: VirtualLoop, case: Case, executions: Counter[str], killer: Killer
) -> tuple[tuple[str, object], list[Fact]]:
    server, flow = Server(), case.flow(executions)

    def start_worker(name: str) -> None:
        process = Process(name)

        def kill(wire: Wire) -> None:
            loop.kill(process)
            wire.cut()
            loop.call_soon(start_worker, "successor", context=NOWHERE)

        async def work() -> None:
            async with Noria(MemoryBroker(server, "noria", MortalWire(killer, kill))).worker(flow, lease=LEASE):
                await asyncio.Future[None]()

        loop.spawn(process, work())

    start_worker("first")
    broker = MemoryBroker(server, "noria")
    handle = Noria(broker).create_run(flow, RUN.run)
    assert (await handle.start(1)).status == "success"
    await asyncio.sleep(1)  # the first life's record and acknowledgement are of no interest here
    executions.clear()
    ended = (await broker.log.read(RUN))[-1].sequence
    killer.said = []
    result = await handle.time_travel(case.target, input=10)
    await asyncio.sleep(3 * LEASE)
    assert not (await broker.commands.unacknowledged("w")).pending
    record, shown = await broker.records.get(RUN.tree), await handle.get()
    assert record is not None and (shown.status, shown.result) == (result.status, result.result)
    facts = [fact for entry in await broker.log.read_tree(RUN, ended) for fact in envelopes.decode(entry.body).facts]
    return (result.status, result.result), facts


def counted(executions: Counter[str], name: str) -> Step:
    async def body(x: int, ctx: Context) -> int:
        executions[name] += 1
        return x + 1

    return step(body, id=name)


def line(executions: Counter[str]) -> Workflow:
    first, second, third = (counted(executions, name) for name in ("first", "second", "third"))
    return Workflow("w").then(first).then(second).then(third).commit()


def tree(executions: Counter[str]) -> Workflow:
    """The target is in a child; its sibling stays."""
    first, second, third, beside = (counted(executions, name) for name in ("first", "second", "third", "beside"))
    return Workflow("w").parallel([Workflow("inner").then(first).then(second).then(third), beside]).commit()


LINE, TREE = Case(line, "second", 12, ("second", "third")), Case(tree, "inner.second", {"inner": 12, "beside": 2}, ("second", "third"))


@pytest.mark.parametrize("case", [LINE, TREE], ids=["line", "tree"])
@pytest.mark.parametrize("arrives", [False, True], ids=["before", "after"])
def test_a_time_travel_survives_every_crash(case: Case, arrives: bool) -> None:
    whole = lived(case)
    assert (whole.status, whole.result, whole.executions) == ("success", case.result, dict.fromkeys(case.steps, 1))
    kinds = Counter[str]()
    for at in range(1, len(whole.said) + 1):
        crashed = lived(case, at, arrives)
        assert len(crashed.said) > at, "nobody died"
        kinds[crashed.said[at - 1]] += 1
        assert (crashed.status, crashed.result) == ("success", case.result), f"killed at {at}: {crashed}"
        facts = [fact for fact in crashed.log if not isinstance(fact, TakenOver)]
        assert [isinstance(fact, Rewound) for fact in facts] == [True, *(False for _ in facts[1:])], f"killed at {at}: {facts}"
        assert tuple(fact.step for fact in facts if isinstance(fact, StepEnded)) == case.steps
        assert sum(crashed.executions.values()) <= len(case.steps) + 1, f"killed at {at}: {crashed.executions}"
    assert kinds["run append"] > len(case.steps) and kinds["record put"] and kinds["ack"]

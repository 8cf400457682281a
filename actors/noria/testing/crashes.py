"""Runs a workflow again and again, with its worker killed at every append in turn: what comes of each, and which steps
are not idempotent.

    report = await crash_everywhere(order, {"sku": "x"}, effects=lambda: list(charged), prepare=charged.clear)
    report.check()  # or look: report.not_idempotent == {"charge": "…"}
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from noria.client.noria import Noria
from noria.contract.facts import StepEnded, StepSuspended
from noria.contract.results import RunResult, Suspension
from noria.contract.values import plain
from noria.ports import Delivery, RunKey, Stretch
from noria.testing.loop import NOWHERE, Process, VirtualLoop, run
from noria.testing.memory import MemoryBroker
from noria.testing.server import Server
from noria.testing.wire import Wire
from noria.workflow.builder import Workflow

T = TypeVar("T")
LEASE_SECONDS = 5.0
RUN_ID = "crash-everywhere"  # the same in each run, so idempotency keys are
Answer = Callable[[Suspension], Any]
Call = tuple[str, str, int, int, str]  # path, step, round, try, what it was resumed with


@dataclass(frozen=True)
class Crash:
    """One run whose worker was killed once: at which append (from 1), before it was stored or after."""

    append: int
    stored: bool
    status: str
    result: Any
    repeated: tuple[str, ...] = ()  # steps that ran a second time
    differing: tuple[str, ...] = ()  # those of them that came to something else then
    effects: Any = None


@dataclass
class CrashReport:
    """`status`, `result` and `effects` are those of the run that nothing happened to."""

    status: str
    result: Any
    effects: Any = None
    crashes: list[Crash] = field(default_factory=list[Crash])

    @property
    def disagreeing(self) -> list[Crash]:
        """The crashes that changed what the run came to."""
        return [c for c in self.crashes if (c.status, c.result) != (self.status, self.result)]

    @property
    def not_idempotent(self) -> dict[str, str]:
        """Step -> why: to run it twice was not the same as to run it once. Nested and parallel steps are dotted."""
        found: dict[str, str] = {}
        for crash in self.crashes:
            when = f"{'after' if crash.stored else 'before'} append {crash.append}"
            for step in crash.differing:
                found.setdefault(step, f"killed {when}, it ran again and came to something else")
            if crash.effects != self.effects:
                for step in crash.repeated:
                    found.setdefault(step, f"killed {when}, it ran again and left {crash.effects!r} instead of {self.effects!r}")
        return found

    def check(self) -> None:
        """Raises AssertionError that names the steps and runs that a crash makes a difference to."""
        lines = [f"step {step!r} is not idempotent: {why}" for step, why in self.not_idempotent.items()]
        came = f"not {self.status} {self.result!r}"
        lines += [f"killed at append {c.append}, the run came to {c.status} {c.result!r}, {came}" for c in self.disagreeing]
        if lines:
            raise AssertionError("\n".join(lines))


async def crash_everywhere(
    workflow: Workflow, input: Any = None, *, answer: Answer | None = None, effects: Callable[[], Any] | None = None,
    prepare: Callable[[], object] | None = None,
) -> CrashReport:  # fmt: skip
    """Run the workflow undisturbed, then once with its worker killed before each append and once after it. Each run has
    a simulated broker, virtual time and an event loop of its own, in another thread.

    `answer`: the resume data for a suspension; without it a run is over when it suspends. `effects`: what a run did to
    the outside world, compared after each run; `prepare` is called before each of them.
    """

    def everything() -> CrashReport:
        first, appends = _lived(workflow, input, answer, effects, prepare, Killer())
        report = CrashReport(first.status, first.result, first.effects)
        for append in range(1, appends + 1):
            for stored in (False, True):
                report.crashes.append(_lived(workflow, input, answer, effects, prepare, Killer(append, stored))[0])
        return report

    with ThreadPoolExecutor(1, "noria-crashes") as thread:
        return await asyncio.wrap_future(thread.submit(everything))


class Killer:
    """Kills the first worker at its `append`th append of a fact, before the server has it or after. 0: nobody."""

    def __init__(self, append: int = 0, stored: bool = False) -> None:
        self.append, self.stored = append, stored
        self.seen = 0

    def due(self, name: str) -> bool:
        if name != "run append":
            return False
        self.seen += 1
        return self.seen == self.append


class MortalWire(Wire):
    """The connection of a worker that a killer waits for."""

    def __init__(self, killer: Killer, kill: Callable[[], None]) -> None:
        super().__init__()
        self._killer, self._kill = killer, kill

    def request(self, name: str, operation: Callable[[], T]) -> asyncio.Future[T]:
        if not self._killer.due(name):
            return super().request(name, operation)
        if self._killer.stored:
            operation()
        self._kill()
        return super().request(name, operation)  # by somebody who is no more


class Executions:
    """Every call of a step, by whom it was made and what came of it. An Observer."""

    def __init__(self) -> None:
        self.outcomes: dict[Call, list[Any]] = {}

    def sends(self, verb: str, run: RunKey, traceparent: str | None, of: str | None) -> AbstractContextManager[str | None]:
        return nullcontext(traceparent)

    def delivered(self, delivery: Delivery) -> None:
        """Of no interest here."""

    def hosts(self, delivery: Delivery, traceparent: str | None) -> Stretch:
        return Recording(self, traceparent or "")

    def serves(self, step: str, run: RunKey, traceparent: str | None) -> AbstractContextManager[None]:
        return nullcontext()

    def traceparent(self) -> str | None:
        return None

    def again(self) -> dict[str, bool]:
        """Steps that ran more than once -> whether they came to something else then."""
        found: dict[str, bool] = {}
        for (path, step, *_), outcomes in self.outcomes.items():
            if len(outcomes) > 1:
                name = step if not path else path if path.rpartition(".")[2].partition("=")[0] == step else f"{path}.{step}"
                found[name] = found.get(name, False) or any(outcome != outcomes[0] for outcome in outcomes)
        return found


class Recording:
    """A Stretch."""

    def __init__(self, executions: Executions, traceparent: str) -> None:
        self.traceparent, self._executions = traceparent, executions

    async def step(self, step: str, path: str, attempt: int, work: Coroutine[Any, Any, T]) -> T:
        outcome = await work
        fact: object = outcome
        if isinstance(fact, (StepEnded, StepSuspended)):
            resumed = repr(fact.resume_payload) if fact.has_resume else ""
            kept = [getattr(fact, name, None) for name in ("status", "output", "error", "payload", "writes")]
            self._executions.outcomes.setdefault((path, step, fact.round, attempt, resumed), []).append(plain(kept))
        return outcome

    async def child(self, path: str, work: Coroutine[Any, Any, str]) -> str:
        return await work

    async def evaluation(self, what: str, entry: str, path: str, work: Coroutine[Any, Any, T]) -> T:
        return await work

    def took_in(self, command: bytes) -> None:
        """Of no interest here."""

    def slept(self, step: str, path: str, began: float, ended: float) -> None:
        """Of no interest here."""

    def appended(self) -> None:
        """Of no interest here."""

    def conflict(self) -> None:
        """Of no interest here."""

    def end(self, status: str) -> None:
        """Of no interest here."""


def _lived(
    workflow: Workflow, input: Any, answer: Answer | None, effects: Callable[[], Any] | None, prepare: Callable[[], object] | None,
    killer: Killer,
) -> tuple[Crash, int]:  # fmt: skip
    """What came of a run, and how many facts were appended in it."""
    if prepare is not None:
        prepare()
    executions = Executions()
    result = run(lambda loop: _live(loop, workflow, input, answer, killer, executions), 0)
    again = executions.again()
    differing = tuple(step for step, differs in again.items() if differs)
    left = effects() if effects is not None else None
    return Crash(killer.append, killer.stored, result.status, result.result, tuple(again), differing, left), killer.seen


async def _live(
    loop: VirtualLoop, workflow: Workflow, input: Any, answer: Answer | None, killer: Killer, executions: Executions
) -> RunResult:
    server = Server()

    def start_worker(name: str) -> None:
        process = Process(name)

        async def work() -> None:
            wire = MortalWire(killer, lambda: die(process, wire))
            noria = Noria(MemoryBroker(server, "noria", wire))
            noria.observer = executions
            async with noria.worker(workflow, lease=LEASE_SECONDS):
                await asyncio.Future[None]()

        loop.spawn(process, work())

    def die(process: Process, wire: MortalWire) -> None:
        loop.kill(process)
        wire.cut()
        loop.call_soon(start_worker, "successor", context=NOWHERE)

    start_worker("first")
    client = Noria(MemoryBroker(server, "noria"))
    handle = client.create_run(workflow, RUN_ID)
    result = await handle.start(input)
    while result.status == "suspended" and answer is not None:
        suspension = result.suspended[0]
        result = await handle.resume(answer(suspension), step=list(suspension.path), index=suspension.index)
    return result

"""An event loop of virtual time and simulated processes: deterministic, and dead or frozen where a test wants it.

Time stands still while anything can run and jumps to the next timer when nothing can. Callbacks belong to the process
in whose context they were made: those of a killed process never run again (no `finally` either: it was kill -9), those
of a frozen one wait. Of several processes that could run, the seeded order chooses; within one, order is kept.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import logging
import random
import warnings
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple, Unpack, cast

from noria import chance, clock

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
EPOCH = 1_800_000_000.0  # what the wall clock of a simulation says at its beginning


class Process:
    """What dies and freezes as a whole. `skew`: how far its wall clock is off, in seconds."""

    def __init__(self, name: str) -> None:
        self.name, self.skew = name, 0.0
        self.killed = self.frozen = False
        self.ready: deque[asyncio.Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []  # kept: a task that is collected would run its `finally`

    def __repr__(self) -> str:
        return f"<{self.name}>"


OUTSIDE = Process("outside")  # the server, the network, the test itself
_process: contextvars.ContextVar[Process] = contextvars.ContextVar("process", default=OUTSIDE)
NOWHERE = contextvars.Context()  # the context of OUTSIDE


class Stuck(Exception):
    """Nothing can run and no timer is set: whoever waits would wait for ever."""


def current_process() -> Process:
    return _process.get()


def process_context(process: Process) -> contextvars.Context:
    """A context in which everything belongs to `process`."""
    context = contextvars.Context()
    context.run(_process.set, process)
    return context


class NumberedFuture(asyncio.Future[Any]):
    """Hashed by order of birth: sets of them iterate alike in every run."""

    _birth = -1

    def __hash__(self) -> int:
        if self._birth < 0:
            self._birth = next(cast(VirtualLoop, self.get_loop()).births)
        return self._birth


class NumberedTask(asyncio.Task[Any]):
    """As above."""

    _birth = -1

    def __hash__(self) -> int:
        if self._birth < 0:
            self._birth = next(cast(VirtualLoop, self.get_loop()).births)
        return self._birth


class VirtualLoop(asyncio.BaseEventLoop):
    """Made by `run`; `turns` counts callbacks."""

    def __init__(self, order: random.Random) -> None:
        super().__init__()
        self.turns = 0
        self.on_turn: Callable[[], None] = _nothing
        self._order, self._virtual = order, 0.0
        self.processes: list[Process] = [OUTSIDE]
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self.births = itertools.count()
        OUTSIDE.ready.clear()
        self.set_task_factory(_task)

    def time(self) -> float:
        return self._virtual

    # Processes --------------------------------------------------------------------------------------------------

    def spawn(self, process: Process, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start `work` as a task of `process`."""
        if process not in self.processes:
            self.processes.append(process)
        return self.create_task(work, context=process_context(process))

    def kill(self, process: Process) -> None:
        process.killed = True
        process.ready.clear()

    # Callbacks --------------------------------------------------------------------------------------------------

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self.births), handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._virtual + max(0.0, delay), callback, *args, context=context)

    def _append(self, handle: asyncio.Handle) -> None:
        process = _owner(handle)
        if not process.killed:
            process.ready.append(handle)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing to count: cancelled timers are passed over when they are due."""

    def _run_once(self) -> None:
        runnable = [p for p in self.processes if p.ready and not p.frozen]
        if not runnable:
            self._jump()
            return
        process = runnable[0] if len(runnable) == 1 else self._order.choice(runnable)
        handle = process.ready.popleft()
        if not handle.cancelled():
            self.turns += 1
            cast(Any, handle)._run()
            self.on_turn()

    def _jump(self) -> None:
        timers = self._timers
        while timers and (timers[0][2].cancelled() or _owner(timers[0][2]).killed):
            heapq.heappop(timers)
        if not timers:
            raise Stuck("nothing can move any more")
        self._virtual = max(self._virtual, timers[0][0])
        while timers and timers[0][0] <= self._virtual:
            self._append(heapq.heappop(timers)[2])

    # What the base class leaves to others -----------------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        return NumberedFuture(loop=self)

    async def run_in_executor(self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:  # pyright: ignore[reportIncompatibleMethodOverride]
        """At once and in place: threads would bring in chance."""
        return func(*args)

    def _process_events(self, event_list: Any) -> None:
        """There is no I/O."""

    def _write_to_self(self) -> None:
        """There is nobody to wake up."""


def _owner(handle: asyncio.Handle) -> Process:
    context: contextvars.Context = cast(Any, handle)._context
    return context.get(_process, OUTSIDE)


def _task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    context: contextvars.Context | None = options.get("context")
    task = NumberedTask(work, loop=loop, **options)
    process = _process.get() if context is None else context.get(_process, OUTSIDE)
    process.tasks.append(task)
    return task


def _nothing() -> None:
    return None


def source(loop: asyncio.AbstractEventLoop, start: float = EPOCH) -> clock.Source:
    """Time as a simulation has it: `start` is what the wall clocks say now, in epoch seconds, but for their skew."""
    begun = loop.time()
    return clock.Source(lambda: start + loop.time() - begun + _process.get().skew, loop.time)


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]], seed: int) -> T:
    """Run `main` to its end on a loop of its own; time and chance are the simulation's meanwhile. The same seed gives
    the same run."""
    loop = VirtualLoop(random.Random(seed))
    time, luck = clock.use(source(loop)), chance.use(random.Random(seed ^ 0x5EED))
    try:
        return loop.run_until_complete(loop.create_task(main(loop), context=contextvars.Context()))
    finally:
        clock.use(time)
        chance.use(luck)
        _forget(loop)


def _forget(loop: VirtualLoop) -> None:
    """End the coroutines that are left without a word: they are of processes that are no more."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of those that never began
        _close_all(loop)
    logging.disable(level)
    loop.close()


def _close_all(loop: VirtualLoop) -> None:
    for process in loop.processes:
        process.killed = True
        process.ready.clear()
        for task in process.tasks:
            setattr(task, "_log_destroy_pending", False)
            try:
                cast(Any, task.get_coro()).close()
            except BaseException:  # a `finally` that awaits, or cannot do without a running loop
                pass
        process.tasks.clear()
    OUTSIDE.killed = False

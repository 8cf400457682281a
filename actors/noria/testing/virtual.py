"""Virtual time on the event loop that is running: for tests that have a loop of their own already.

While it lasts, time stands still as long as anything can run and jumps to the next timer when nothing can; what waits
for the outside world (a socket, another process) sees it fly. Sync steps run in place instead of in threads.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple, cast

from noria import chance, clock
from noria.errors import NoriaError
from noria.testing.loop import EPOCH, source

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Jumping:
    """Stands for a loop's selector: where that would wait for the next timer, the time is advanced instead."""

    def __init__(self, selector: Any, advance: Callable[[float], None]) -> None:
        self._selector, self._advance = selector, advance

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            return self._selector.select(None)
        events = self._selector.select(0)
        if not events and timeout > 0:
            self._advance(timeout)
        return events

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)


@contextmanager
def virtual_time(start: float = EPOCH, seed: int = 0) -> Generator[None]:
    """Make the running loop's time virtual; `start`: what the wall clock says, in epoch seconds. Identities and jitter
    come from `seed`. Afterwards the loop's time goes on in earnest from where it got to. Raises NoriaError on loops
    that are not asyncio's own."""
    loop = cast(Any, asyncio.get_running_loop())
    selector = getattr(loop, "_selector", None)
    if selector is None:
        raise NoriaError(f"virtual time needs asyncio's own event loop, not {type(loop).__name__}")
    earnest: Callable[[], float] = loop.time
    in_threads = loop.run_in_executor
    stands = earnest()

    def advance(seconds: float) -> None:
        nonlocal stands
        stands += seconds

    async def in_place(executor: Any, function: Callable[[*Ts], T], *args: *Ts) -> T:
        return function(*args)

    loop._selector, loop.time, loop.run_in_executor = _Jumping(selector, advance), lambda: stands, in_place
    time, luck = clock.use(source(loop, start)), chance.use(random.Random(seed))
    try:
        yield
    finally:
        clock.use(time)
        chance.use(luck)
        ahead = stands - earnest()
        loop._selector, loop.time, loop.run_in_executor = selector, lambda: earnest() + ahead, in_threads

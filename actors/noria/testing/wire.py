"""The way between a client and the server: here at once and without a fault; `faults.py` has the other kind."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

from noria.errors import BrokerUnavailable
from noria.limits import PATIENCE_SECONDS
from noria.ports import Closed, Late, Refused
from noria.testing.loop import NOWHERE

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Wire:
    """One connection of one process. Requests arrive in the order in which they were made.

    `cut` makes it the connection of somebody who died: nothing arrives any more, on either side, and whoever awaits an
    answer waits for ever. `closed` is told when it ends, in whatever way: the server notices.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.context = contextvars.copy_context()
        self.closed: list[Callable[[], None]] = []
        self.is_cut = self.is_closed = False

    def request(self, name: str, operation: Callable[[], T]) -> asyncio.Future[T]:
        """Have the server do something; the answer. `name` says what, for whoever plans faults."""
        answer: asyncio.Future[T] = self.loop.create_future()
        answer.add_done_callback(_retrieved)
        if self.is_closed:
            answer.set_exception(Closed("the connection is closed"))
        elif not self.is_cut:
            self.loop.call_soon(self._arrive, operation, answer, context=NOWHERE)
        return answer

    def _arrive(self, operation: Callable[[], T], answer: asyncio.Future[T]) -> None:
        perform(operation, answer)

    def send(self, name: str, operation: Callable[[], object]) -> None:
        """The same without an answer."""
        if not self.is_cut and not self.is_closed:
            self.loop.call_soon(operation, context=NOWHERE)

    def lag(self) -> float:
        """By how many seconds what answers a read is behind."""
        return 0.0

    def receive(self, name: str, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """The server's word to the process."""
        self.loop.call_soon(self._come, callback, args, context=self.context)

    def _come(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        if not self.is_cut and not self.is_closed:
            callback(*args)

    def cut(self) -> None:
        self.is_cut = True
        self._end()

    def close(self) -> None:
        self.is_closed = True
        self._end()

    def _end(self) -> None:
        for callback in self.closed:
            callback()
        self.closed.clear()


def perform(operation: Callable[[], T], answer: asyncio.Future[T]) -> None:
    """Do it and answer, with an error where it has one."""
    try:
        result = operation()
    except Exception as error:
        settle(answer, error)
    else:
        if not answer.done():
            answer.set_result(result)


def settle(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # retrieved: whoever asked may be no more


def _retrieved(answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled():
        answer.exception()


async def ask(wire: Wire, name: str, operation: Callable[[], T]) -> T:
    """A question that may be asked again while nobody answers."""
    end = wire.loop.time() + PATIENCE_SECONDS
    while True:
        try:
            return await wire.request(name, operation)
        except BrokerUnavailable:
            if wire.loop.time() > end or wire.is_closed:
                raise
        await asyncio.sleep(0.1)


def store(
    wire: Wire, name: str, operation: Callable[[], int], own: Callable[[], int | None], late: Late | None = None
) -> asyncio.Future[int]:
    """An append: under way at once, completed though nobody awaits it, tried again while nobody answers. A refusal of
    a second try may be the first one's doing: `own` gives the sequence of what was stored then."""
    result: asyncio.Future[int] = wire.loop.create_future()
    result.add_done_callback(_retrieved)
    end = wire.loop.time() + PATIENCE_SECONDS

    def again() -> int:
        try:
            return operation()
        except Refused:
            found = own()
            if found is None:
                raise
            return found

    def answered(answer: asyncio.Future[int]) -> None:
        error = answer.exception() if not answer.cancelled() else BrokerUnavailable("cancelled")
        if result.done() and (late is None or not result.cancelled()):
            return
        if error is None:
            end_with(answer.result(), None)
        elif isinstance(error, BrokerUnavailable) and wire.loop.time() < end and not wire.is_closed:
            wire.loop.call_later(0.1, retry)
        else:
            end_with(0, error)

    def end_with(sequence: int, error: BaseException | None) -> None:
        if late is not None and result.cancelled():
            late(sequence or None)
        elif error is not None:
            result.set_exception(error)
        else:
            result.set_result(sequence)

    def retry() -> None:
        wire.request(name, again).add_done_callback(answered)

    wire.request(name, operation).add_done_callback(answered)
    return result

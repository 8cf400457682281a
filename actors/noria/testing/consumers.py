"""Who gets which message, and when again: pull consumers as JetStream has them.

Acknowledgements count whichever delivery of a message they come from, late ones too; so do renewals. A message that
was handed back comes again, with a higher count, before new ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from noria.testing.loop import NOWHERE

if TYPE_CHECKING:
    from noria.testing.server import Server

EXPIRES_SECONDS = 20.0  # of a wish


@dataclass(eq=False)
class Wish:
    """A pull request: up to `left` messages, each given to `give` with its count; `over` when it expired."""

    left: int
    give: Callable[[int, int], None]
    over: Callable[[int], None]


@dataclass
class Pending:
    """A message that was delivered and is not acknowledged."""

    timer: asyncio.TimerHandle


@dataclass(eq=False)
class Queue:
    """Sequences to deliver, wishes for them, and what is under way."""

    loop: asyncio.AbstractEventLoop
    ack_seconds: float
    exists: Callable[[int], bool]
    new: list[int] = field(default_factory=list[int])
    again: list[int] = field(default_factory=list[int])
    counts: dict[int, int] = field(default_factory=dict[int, int])
    pending: dict[int, Pending] = field(default_factory=dict[int, Pending])
    wishes: list[Wish] = field(default_factory=list[Wish])

    def offer(self, sequence: int) -> None:
        self.new.append(sequence)
        self.dispatch()

    def wish(self, wish: Wish) -> None:
        self.wishes.append(wish)
        self.loop.call_later(EXPIRES_SECONDS, self._expire, wish, context=NOWHERE)
        self.dispatch()

    def forget(self, wish: Wish) -> None:
        if wish in self.wishes:
            self.wishes.remove(wish)

    def _expire(self, wish: Wish) -> None:
        if wish in self.wishes:
            self.wishes.remove(wish)
            wish.over(wish.left)

    def dispatch(self) -> None:
        while self.wishes and (self.again or self.new):
            sequence = (self.again or self.new).pop(0)
            if not self.exists(sequence):
                self._forget_message(sequence)
                continue
            wish = self.wishes.pop(0)
            wish.left -= 1
            if wish.left:
                self.wishes.append(wish)  # in turn: of several who wish each gets some
            count = self.counts[sequence] = self.counts.get(sequence, 0) + 1
            self._await_ack(sequence, self.ack_seconds)
            wish.give(sequence, count)

    def _await_ack(self, sequence: int, seconds: float) -> None:
        old = self.pending.get(sequence)
        if old is not None:
            old.timer.cancel()
        self.pending[sequence] = Pending(self.loop.call_later(seconds, self.expire, sequence, context=NOWHERE))

    def expire(self, sequence: int) -> None:
        """The lease of a message is over: it comes again."""
        if sequence in self.pending and sequence not in self.again:
            self.again.append(sequence)
            self.dispatch()

    def _forget_message(self, sequence: int) -> None:
        pending = self.pending.pop(sequence, None)
        if pending is not None:
            pending.timer.cancel()
        self.counts.pop(sequence, None)
        if sequence in self.again:
            self.again.remove(sequence)

    def ack(self, sequence: int) -> None:
        if sequence in self.pending:
            self._forget_message(sequence)

    def renew(self, sequence: int) -> None:
        if sequence in self.pending and sequence not in self.again:
            self._await_ack(sequence, self.ack_seconds)

    def hand_back(self, sequence: int, delay: float) -> None:
        if sequence not in self.pending:
            return
        if delay:
            self._await_ack(sequence, delay)
        else:
            self.expire(sequence)


class Consumer(Queue):
    """The commands of one workflow. `present`: how many workers say that they are there."""

    def __init__(self, server: Server, lease_seconds: float) -> None:
        super().__init__(server.loop, lease_seconds, server.messages.__contains__)
        self.present = 0

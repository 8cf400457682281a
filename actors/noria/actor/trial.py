"""Runs that were taken over again and again are hosted one at a time, so that only the culprit reaches the limit."""

from __future__ import annotations

from collections import deque

from noria.actor.activation import Activation


class Trial:
    """The one place of a worker for a suspect, and the queue for it. It is left as soon as the suspect gets on, only
    watches its children, rests or is dropped."""

    def __init__(self) -> None:
        self.suspect: Activation | None = None
        self._queue: deque[Activation] = deque()

    def enter(self, activation: Activation) -> bool:
        """Whether the place is the activation's. Else it is queued, and woken when its turn comes."""
        if self.suspect is None:
            self.suspect = activation
        elif self.suspect is not activation and activation not in self._queue:
            self._queue.append(activation)
        return self.suspect is activation

    def leave(self, activation: Activation) -> None:
        """Give up the place, or the wish for it."""
        if self.suspect is activation:
            self.suspect = self._queue.popleft() if self._queue else None
            if self.suspect is not None:
                self.suspect.wake()
        elif activation in self._queue:
            self._queue.remove(activation)

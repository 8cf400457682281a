"""That a step began: a live event once it waits for anything or says something itself, else its fact says so too.

A step that ends before the event loop turns costs one message instead of two; nobody could have seen it run.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from noria.clock import now
from noria.machine.state import Actor

if TYPE_CHECKING:
    from noria.actor.journal import Journal


class Notice:
    """One beginning."""

    __slots__ = ("_actor", "_at", "_data", "_journal", "_step", "_told", "_turn", "_untold")

    def __init__(self, journal: Journal, actor: Actor, step: str, data: dict[str, Any]) -> None:
        self._journal, self._actor, self._step, self._data, self._at = journal, actor, step, data, now()
        self._told = self._untold = False
        self._turn = asyncio.get_running_loop().call_soon(self.tell)

    def tell(self) -> None:
        """Tell observers, unless they know."""
        if not self._told:
            self._told = True
            self._turn.cancel()
            self._journal.live("workflow-step-start", self._actor, self._step, self._data, self._at)

    def left_to_fact(self) -> bool:
        """At the end: whether nobody was told. The same answer each time."""
        if not self._told:
            self._told = self._untold = True
            self._turn.cancel()
        return self._untold

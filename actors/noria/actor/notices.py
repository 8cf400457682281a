"""That a step began: a live event once it waits for anything or says something itself, else its fact says so too.

A step that ends before the event loop turns costs one message instead of two; nobody could have seen it run.
"""

from __future__ import annotations

import asyncio
from typing import Any

from noria.actor.journal import Journal
from noria.clock import now
from noria.machine.state import Actor


class Notice:
    """One beginning."""

    __slots__ = ("_actor", "_at", "_data", "_journal", "_step", "_told", "_untold")

    def __init__(self, journal: Journal, notices: Notices, actor: Actor, step: str, data: dict[str, Any]) -> None:
        self._journal, self._actor, self._step, self._data, self._at = journal, actor, step, data, now()
        self._told = self._untold = False
        notices.tell_soon(self)

    def tell(self) -> None:
        """Tell observers, unless they know."""
        if not self._told:
            self._told = True
            self._journal.live("workflow-step-start", self._actor, self._step, self._data, self._at)

    def left_to_fact(self) -> bool:
        """At the end: whether nobody was told. The same answer each time."""
        if not self._told:
            self._told = self._untold = True
        return self._untold


class Notices:
    """Those of a host that are told once the event loop turns, all at once."""

    def __init__(self) -> None:
        self._waiting: list[Notice] = []

    def tell_soon(self, notice: Notice) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._turned)
        self._waiting.append(notice)

    def _turned(self) -> None:
        waiting, self._waiting = self._waiting, []
        for notice in waiting:
            notice.tell()

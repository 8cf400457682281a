"""Reading once what many want at the same time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

P = TypeVar("P")
T = TypeVar("T")


class Once(Generic[P, T]):
    """What was read of the last `most` places."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[P, asyncio.Task[T]] = OrderedDict()

    async def read(self, place: P, how: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What stands at a place, read by whoever comes first, and again when that failed."""
        reading = self._known.get(place)
        if reading is None or (reading.done() and (reading.cancelled() or reading.exception() is not None)):
            reading = self._known[place] = asyncio.create_task(how())
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return await asyncio.shield(reading)

"""The only reader of the wall clock, and the one place where another clock may stand for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple


class Source(NamedTuple):
    """Where time comes from: `wall` in epoch seconds, `steady` in seconds that never go back."""

    wall: Callable[[], float]
    steady: Callable[[], float]


SYSTEM = Source(time.time, time.monotonic)
_source = SYSTEM


def use(source: Source) -> Source:
    """Read time from `source` from now on; the source before it. For simulations."""
    global _source
    before, _source = _source, source
    return before


def now() -> float:
    """Epoch seconds."""
    return _source[0]()


def monotonic() -> float:
    """Seconds of a clock that never goes back, for leases and deadlines."""
    return _source[1]()


def aware(seconds: float) -> datetime:
    """An aware datetime in UTC of epoch seconds."""
    return datetime.fromtimestamp(seconds, UTC)

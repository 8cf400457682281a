"""The only reader of the wall clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> float:
    """Epoch seconds."""
    return time.time()


def monotonic() -> float:
    """Seconds of a clock that never goes back, for leases and deadlines."""
    return time.monotonic()


def aware(seconds: float) -> datetime:
    """An aware datetime in UTC of epoch seconds."""
    return datetime.fromtimestamp(seconds, UTC)

"""What is written beside the functions of a definition: names, durations, retries. Wrong ones are refused where they are
written, with their owner and the fix."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from noria.errors import DefinitionError
from noria.ids import NAME
from noria.retry import Retry


def checked_name(name: Any, what: str) -> str:
    """The name itself. Raises DefinitionError for one that is no subject token."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise DefinitionError(f"{what} id {name!r}: use letters, digits, '-' and '_' only")
    return name


def checked_seconds(duration: Any, what: str) -> float | None:
    """A duration in seconds; None is none. Raises DefinitionError."""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
        raise DefinitionError(f"{what} needs seconds (0 or more), a timedelta or None, not {duration!r}")
    return seconds


def checked_retry(retry: Any, what: str) -> Retry:
    """Raises DefinitionError for what is no Retry."""
    if not isinstance(retry, Retry):
        raise DefinitionError(f"{what}: retry takes Retry(attempts=…, delay=…), not {retry!r}")
    return retry

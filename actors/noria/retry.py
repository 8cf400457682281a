"""How a step is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from noria.errors import DefinitionError
from noria.limits import MAX_ATTEMPTS, MAX_PAUSE_SECONDS


@dataclass(frozen=True, slots=True)
class Retry:
    """`attempts` further tries after the first, `delay` seconds before the first of them, times `backoff` for each
    next, at most `max_delay`, plus up to `jitter` seconds by chance. `non_retryable` classes fail at once."""

    attempts: int = 0
    delay: float = 0.0
    backoff: float = 1.0
    max_delay: float | None = None
    jitter: float = 0.0
    non_retryable: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        for name in ("attempts", "delay", "backoff", "max_delay", "jitter"):
            given: object = getattr(self, name)
            if not (isinstance(given, (int, float)) and given >= 0) and not (name == "max_delay" and given is None):
                raise DefinitionError(f"Retry({name}={given!r}): give a number, 0 or more")
        given = cast(object, self.non_retryable)
        classes = cast(tuple[object, ...], given if isinstance(given, (tuple, list)) else (None,))
        if not all(isinstance(c, type) and issubclass(c, BaseException) for c in classes):
            raise DefinitionError(f"Retry(non_retryable={given!r}): give a tuple of exception classes")
        if self.attempts > MAX_ATTEMPTS:
            raise DefinitionError(f"Retry(attempts={self.attempts}): at most {MAX_ATTEMPTS}")

    def pause(self, attempt: int, chance: float) -> float:
        """Seconds before try number `attempt` (1 = the first retry); `chance` is in [0, 1)."""
        try:
            pause = min(self.delay * float(self.backoff) ** (attempt - 1), MAX_PAUSE_SECONDS)
        except OverflowError:
            pause = MAX_PAUSE_SECONDS
        return (pause if self.max_delay is None else min(pause, self.max_delay)) + chance * self.jitter

"""The only source of chance, and the one place where a seeded one may stand for it."""

from __future__ import annotations

import random as _random

SYSTEM: _random.Random = _random.SystemRandom()
_source = SYSTEM


def use(source: _random.Random) -> _random.Random:
    """Take chance from `source` from now on; the source before it. For simulations."""
    global _source
    before, _source = _source, source
    return before


def fraction() -> float:
    """A number in [0, 1)."""
    return _source.random()


def token(size: int) -> bytes:
    """`size` bytes that nobody else has."""
    return _source.randbytes(size)

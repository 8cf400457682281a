"""What a world has beside bad weather, by its seed."""

from __future__ import annotations

import random
from typing import NamedTuple

MIXED_WORDS = 200_000  # the first seed of worlds with `words` and `wide`: those before are as they were


class Kind(NamedTuple):
    """`stale`: the chance that a read comes from a replica that lags; `travels`: runs are sent back and forked; `steps`: some
    go step by step; `mixed`: suspensions beside failures, nested workflows that are tried again; `cancels`: many are
    canceled; `inline_bytes`: larger bodies are parcels; `words`: whoever lets a run go on asks for one step or for all, each time
    anew, and answers what it asks before it rests; `wide`: it has nested workflows that live elsewhere."""

    stale: float = 0.0
    travels: bool = False
    steps: bool = False
    mixed: bool = False
    cancels: bool = False
    inline_bytes: int | None = None
    words: bool = False
    wide: bool = False


def kind(chance: random.Random, seed: int) -> Kind:
    found = _kind(chance)
    return found if seed < MIXED_WORDS else found._replace(words=chance.random() < 0.5, wide=chance.random() < 0.4)


def _kind(chance: random.Random) -> Kind:
    if chance.random() < 0.5:
        return Kind()
    return Kind(
        chance.choice([0.0, 0.02, 0.2]), chance.random() < 0.4, chance.random() < 0.3, chance.random() < 0.4, chance.random() < 0.2,
        chance.choice([None, None, 400]),
    )  # fmt: skip

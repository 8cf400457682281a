"""What a world has beside bad weather, by its seed: half of them nothing."""

from __future__ import annotations

import random
from typing import NamedTuple


class Kind(NamedTuple):
    """`stale`: the chance that a read comes from a replica that lags; `travels`: runs are sent back and forked; `steps`: some
    go step by step; `mixed`: suspensions beside failures, nested workflows that are tried again; `cancels`: many are
    canceled; `inline_bytes`: larger bodies are parcels."""

    stale: float = 0.0
    travels: bool = False
    steps: bool = False
    mixed: bool = False
    cancels: bool = False
    inline_bytes: int | None = None


def kind(chance: random.Random) -> Kind:
    if chance.random() < 0.5:
        return Kind()
    return Kind(
        chance.choice([0.0, 0.02, 0.2]), chance.random() < 0.4, chance.random() < 0.3, chance.random() < 0.4, chance.random() < 0.2,
        chance.choice([None, None, 400]),
    )  # fmt: skip

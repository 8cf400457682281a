"""The full explorations: the models with all their clients and mishaps."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from tests.models import actor, explore, inplace, leaving, record, stale, travel, tree
from tests.models.explore import Found

CANCELED, RIVALS = ("start", "resume", "cancel"), ("start", "resume", "resume")
MODELS: dict[str, Callable[[], Found]] = {
    "one actor": actor.Model(crashes=1, expiries=1).explore,
    "one actor, more leases lost": actor.Model(rescues=0).explore,
    "replicas that lag, a cancel": stale.Model(expiries=1, rescues=0, clients=CANCELED).explore,
    "replicas that lag, rivals": stale.Model(expiries=1, rescues=0, clients=RIVALS).explore,
    "parent and child": tree.Model().explore,
    "record and ageing log": record.Model(crashes=2).explore,
    "time travel": travel.Model(crashes=1, expiries=1, rescues=0).explore,
    "children in place": inplace.Model().explore,
    "hosts that leave": leaving.Model().explore,
}


def walk(name: str) -> tuple[str, Found, float]:
    """One exploration: its name, what it found, seconds."""
    begun = time.perf_counter()
    explore.progress = partial(tell, name, begun)
    return name, MODELS[name](), time.perf_counter() - begun


def tell(name: str, begun: float, states: int, left: int) -> None:
    print(f"  {name}: {states:,} states after {time.perf_counter() - begun:.0f} s, {left:,} of them ahead", flush=True)

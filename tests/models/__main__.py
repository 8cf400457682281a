"""The full explorations, minutes in all: `python -m tests.models`, or some of them by name: `... tree record`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context

from tests.models import actor, explore, inplace, leaving, record, stale, travel, tree
from tests.models.explore import Found

CANCELED, RIVALS = ("start", "resume", "cancel"), ("start", "resume", "resume")
MODELS: dict[str, Callable[[], Found]] = {
    "one actor": actor.Model(expiries=1).explore,
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


def main(names: list[str]) -> None:
    begun = time.perf_counter()
    wanted = [name for name in MODELS if not names or any(part in name for part in names)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(walk, name) for name in wanted]):
            name, found, seconds = done.result()
            print(f"{name}: {found.states:,} states, {found.finals:,} ends, no broken promise, {seconds:.0f} s", flush=True)
    print(f"{len(wanted)} models in {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Many seeds, on all processors; those that fail are kept in a file and run first ever after."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.simulation.world import simulate

FAILED = Path(__file__).parent / "failed_seeds.txt"


def kept() -> list[int]:
    """Seeds that failed once."""
    return [int(line.split()[0]) for line in FAILED.read_text().splitlines() if line.strip() and not line.startswith("#")]


def keep(seed: int, why: str) -> None:
    if seed not in kept():
        with FAILED.open("a") as file:
            file.write(f"{seed}  {why[:120]}\n")


def attempt(seed: int) -> tuple[int, str]:
    """(seed, what was violated); empty: nothing."""
    try:
        simulate(seed)
    except Exception as error:
        return seed, str(error)
    return seed, ""


def simulate_all(seeds: Iterable[int]) -> Iterator[tuple[int, str]]:
    """The violations, as they come."""
    with ProcessPoolExecutor(os.cpu_count() or 1, get_context("spawn")) as pool:
        yield from ((seed, why) for seed, why in pool.map(attempt, seeds, chunksize=5) if why)

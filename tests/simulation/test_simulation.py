"""Worlds by seed keep every guarantee; the same seed is the same world."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.kinds import MIXED_WORDS
from tests.simulation.many import kept, simulate_all
from tests.simulation.world import simulate

ROOT = Path(__file__).parents[2]
FIRST, SEEDS = MIXED_WORDS + 1000, 200
MANY_HOSTS = 201786  # of one run in one process


@pytest.mark.timeout(600)  # for a busy machine: a matter of half a minute
def test_no_world_breaks_a_guarantee() -> None:
    broken = dict(simulate_all([*kept(), *range(FIRST, FIRST + SEEDS)]))
    assert not broken, next(iter(broken.values()))


def test_the_same_seed_gives_the_same_trace() -> None:
    assert simulate(5) == simulate(5) != simulate(6)


@pytest.mark.parametrize("seed", [11, MANY_HOSTS])
def test_a_seed_means_the_same_in_every_process(seed: int) -> None:
    digests = set[str]()
    for hashing in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hashing, "PYTHONPATH": f"{ROOT / 'actors'}{os.pathsep}{ROOT}"}
        command = [sys.executable, "-m", "tests.simulation", "--seed", str(seed)]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=50, check=True)
        digests.add(done.stdout.strip())
    assert digests == {simulate(seed)}

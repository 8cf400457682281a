"""`python -m tests.simulation --seeds 1000`: worlds by seed; `--seed 7`: one of them, told."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.many import keep, kept, simulate_all
from tests.simulation.watch import Violation
from tests.simulation.world import simulate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many, beside those that failed before")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="this one only")
    given = parser.parse_args()
    if given.seed is not None:
        try:
            print(simulate(given.seed))
        except Violation as error:
            print(error)
            return 1
        return 0
    begun, failed = time.perf_counter(), 0
    seeds = [*kept(), *range(given.first, given.first + given.seeds)]
    for seed, why in simulate_all(seeds):
        failed += 1
        keep(seed, why.splitlines()[0].partition(": ")[2])
        print(why.splitlines()[0])
    print(f"{len(seeds)} worlds in {time.perf_counter() - begun:.1f} s, {failed} broken")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

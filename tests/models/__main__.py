"""The full explorations, minutes in all: `python -m tests.models`, or some of them by name: `... child record`."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from tests.models.full import MODELS, walk


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

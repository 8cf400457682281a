"""What all contenders share: sizes of the workloads, metering, the crash of W6. Runs in every peer's environment, so it
needs nothing but psutil."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

RUNS1, WARM1, STEPS1 = 200, 20, 10
RUNS2, STEPS2, FLIGHT2 = 1000, 5, 100
ITEMS3 = 1000
STEPS4 = 1000
RUNS5, FLIGHT5 = 2000, 100
STEPS6, PAUSE6, KILL_AT6, PATIENCE6 = 20, 0.05, 8, 120
KILOBYTE = "y" * 1000
FOLDER = Path(os.environ.get("BENCH_FOLDER", "."))  # fresh for every process
STEPS_LOG, DONE_LOG = FOLDER / "steps.log", FOLDER / "done.log"


def small(i: int) -> dict[str, Any]:
    """About 100 bytes as JSON."""
    return {"i": i, "data": "x" * 80}


def large(i: int) -> dict[str, Any]:
    """About 1 KB as JSON."""
    return {"i": i, "data": KILOBYTE}


def emit(workload: str, **figures: float) -> None:
    """One line of figures on stdout, for bench.py."""
    print(json.dumps({"workload": workload, **figures}), flush=True)


async def all_of(count: int, flight: int, work: Callable[[int], Awaitable[Any]]) -> float:
    """Seconds for `count` calls of work(n), `flight` at once."""
    limit = asyncio.Semaphore(flight)

    async def one(n: int) -> None:
        async with limit:
            await work(n)

    began = time.perf_counter()
    await asyncio.gather(*(one(n) for n in range(count)))
    return time.perf_counter() - began


def latency(seconds: list[float], steps: int = STEPS1) -> dict[str, float]:
    run = statistics.median(seconds)
    return {"p50_ms": run * 1e3, "p99_ms": sorted(seconds)[int(len(seconds) * 0.99)] * 1e3, "step_ms": run * 1e3 / steps}


def growth(stamps: list[float]) -> float:
    """How long the last 100 steps took against the first 100, of stamps around each step."""
    return (stamps[-1] - stamps[-101]) / (stamps[100] - stamps[0])


def stored_bytes(path: Path) -> int:
    """Bytes on disk of a file (with its companions) or a folder."""
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    return sum(f.stat().st_blocks * 512 for f in files if f.is_file())


def memory_mb(pid: int) -> float:
    """Resident memory of one process."""
    return psutil.Process(pid).memory_info().rss / 2**20


def mark(path: Path, i: int) -> None:
    """A line that survives the writer's death."""
    handle = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(handle, f"{i} {time.time()} {os.getpid()}\n".encode())
    os.close(handle)


def marks(path: Path) -> list[tuple[int, float, int]]:
    """(number, time, process) of each."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(number), float(at), int(pid)) for number, at, pid in map(str.split, lines)]


def crash(spawn: Callable[[], subprocess.Popen[bytes]], begin: Callable[[], None] | None = None, *, heir: bool = False) -> dict[str, float]:
    """W6: kill the worker in the midst of the run, start it again at once (`heir`: another one is there already), and
    measure from the kill to the run's end."""
    workers = [spawn(), *([spawn()] if heir else [])]
    if heir:
        time.sleep(3)  # both are up, and know each other
    if begin is not None:
        begin()
    _until(lambda: len(marks(STEPS_LOG)) >= KILL_AT6)
    busy = next((w for w in workers if w.pid == marks(STEPS_LOG)[-1][2]), workers[0])
    busy.kill()
    busy.wait()
    before, killed = len(marks(STEPS_LOG)), time.time()
    if not heir:
        workers.append(spawn())
    try:
        _until(lambda: bool(marks(DONE_LOG)))
        steps = marks(STEPS_LOG)
        return {
            "seconds": marks(DONE_LOG)[0][1] - killed,
            "first_step_s": min((at for _, at, _ in steps[before:]), default=killed) - killed,
            "twice": len(steps) - len({i for i, _, _ in steps}),
        }  # fmt: skip
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE6
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("the run did not get there in time")
        time.sleep(0.005)


def again(*arguments: str) -> subprocess.Popen[bytes]:
    """This contender once more, as a process of its own."""
    return subprocess.Popen([sys.executable, sys.argv[0], *arguments], env=dict(os.environ))

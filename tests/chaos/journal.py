"""The journal of step calls that the workers write, and which of them may have been made again.

A step runs again only if the call before it was under way in a mishap: of its worker, or of all (the server, the
network). So no step is repeated more often than it was in flight when something happened to its host.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, pairwise
from pathlib import Path
from typing import NamedTuple

from noria import Context

LAG_SECONDS = 2.0  # between the end of a call and its recorded result, and until everybody knows of a mishap
numbers = count()


class Call(NamedTuple):
    """One call of a step by a process; `ended` is None where the process died first. Times in epoch seconds."""

    run: str
    key: str
    pid: int
    began: float
    ended: float | None


class Mishap(NamedTuple):
    """From then until then a process could not do its part; all of them without a `pid`."""

    since: float
    until: float
    pid: int | None = None

    def excuses(self, call: Call) -> bool:
        is_its = self.pid in (None, call.pid)
        return is_its and call.began <= self.until + LAG_SECONDS and (call.ended is None or call.ended >= self.since - LAG_SECONDS)


@contextmanager
def noted(journal: str, ctx: Context) -> Iterator[None]:
    """Write a line when the call begins and one when it ends. A step that is resumed is called for a second reason."""
    key = ctx.idempotency_key + ("" if ctx.resume_data is None else "+")
    about = f"{ctx.run_id} {key} {os.getpid()} {next(numbers)}"
    _write(journal, f"began {about} {time.time()}")
    try:
        yield
    finally:
        _write(journal, f"ended {about} {time.time()}")


def _write(journal: str, line: str) -> None:
    if journal:
        file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{line}\n".encode())  # one write: lines of several processes do not mix, and a kill leaves none half
        os.close(file)


def calls(journal: Path, offset: int = 0) -> list[Call]:
    """In the order in which they began; those from `offset` bytes on."""
    found = dict[tuple[str, str], Call]()
    for line in journal.read_bytes()[offset:].decode().splitlines() if journal.exists() else ():
        what, run, key, pid, number, at = line.split()
        if what == "began":
            found[pid, number] = Call(run, key, int(pid), float(at), None)
        elif (pid, number) in found:
            found[pid, number] = found[pid, number]._replace(ended=float(at))
    return sorted(found.values(), key=lambda call: call.began)


def repeated(made: Sequence[Call]) -> list[tuple[Call, Call]]:
    """Each call of a step that was called before, with the call before it."""
    by_key = dict[str, list[Call]]()
    for call in made:
        by_key.setdefault(call.key, []).append(call)
    return [pair for same in by_key.values() for pair in pairwise(same)]


def place(call: Call) -> tuple[str, str, str, int]:
    """Where its result is recorded: run, path, step, round."""
    _, run, *path, step, iteration, _ = call.key.removesuffix("+").split(":")
    return run, ".".join(path), step, int(iteration) + 1

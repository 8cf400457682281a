"""Who kills, who loads, and who counts."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import orjson

from noria import Noria, RunAlreadyStarted
from noria.contract.envelopes import decode
from noria.contract.facts import StepEnded
from noria.embedded import EmbeddedServer, start_server
from noria.errors import BrokerUnavailable
from noria.ids import event_run_id
from noria.ports import ActorKey
from tests.chaos.flows import FLOWS, expected

ROOT = Path(__file__).parents[2]
T = TypeVar("T")


class Workers:
    """Worker processes that are started again when they die."""

    def __init__(self, url: str, namespace: str, journal: Path, count: int = 2, lease: float = 1.5, replicas: int = 1) -> None:
        self._args = [url, namespace, str(journal), str(lease), str(replicas)]
        self._journal = journal
        self._count, self.processes = count, list[subprocess.Popen[bytes]]()
        self.killed = 0

    def start(self) -> subprocess.Popen[bytes]:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "actors"), os.environ.get("PYTHONPATH", "")])}
        process = subprocess.Popen([sys.executable, "-m", "tests.chaos.flows", *self._args], stdout=subprocess.DEVNULL, env=env, cwd=ROOT)
        self.processes.append(process)
        return process

    async def kill_one(self, chance: random.Random) -> None:
        """SIGKILL one that is busy right now; another one takes its place at once."""
        victim = await self.busy(chance)
        self.processes.remove(victim)
        victim.kill()
        victim.wait()
        self.killed += 1
        self.start()

    async def busy(self, chance: random.Random) -> subprocess.Popen[bytes]:
        """One that began a step a moment ago; any, when none did for long."""
        end, size = time.monotonic() + 5, self._journal.stat().st_size if self._journal.exists() else 0
        while time.monotonic() < end:
            await asyncio.sleep(0.01)
            text = self._journal.read_bytes()[size:] if self._journal.exists() else b""
            pids = {int(line.split()[2]) for line in text.splitlines()}
            found = [p for p in self.processes if p.pid in pids]
            if found:
                return chance.choice(found)
        return chance.choice(self.processes)

    async def __aenter__(self) -> Workers:
        for _ in range(self._count):
            self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


class Server:
    """A server on a store and a port of its own, that can be killed and comes back with both."""

    def __init__(self, store: Path) -> None:
        self._store, self.killed = store, 0

    async def __aenter__(self) -> Server:
        self._server: EmbeddedServer = await start_server(self._store)
        self.url = self._server.url
        return self

    async def kill(self, down_seconds: float = 0.0) -> None:
        os.kill(self._server.pid, signal.SIGKILL)
        await asyncio.to_thread(self._server.process.wait)
        await asyncio.sleep(down_seconds)
        self.killed += 1
        self._server = await start_server(self._store, int(self.url.rpartition(":")[2]))

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()


class Load:
    """Starts, resumes, cancels and triggers; what was acknowledged is remembered and must come true."""

    def __init__(self, noria: Noria, seed: int) -> None:
        self.noria, self.chance = noria, random.Random(seed)
        self.acknowledged, self.retried = Counter[str](), Counter[str]()
        self.wanted: dict[str, tuple[str, str, int | None]] = {}  # run id -> (workflow, status, result)

    async def drive(self, runs: int, seconds: float) -> None:
        """That many runs of all kinds, spread over that time, each seen through to its end."""
        await self.noria.broker.provision()
        async with asyncio.TaskGroup() as group:
            for n in range(runs):
                kind = list(FLOWS)[n % len(FLOWS)]
                group.create_task(self._one(n, kind))
                await asyncio.sleep(seconds / runs)

    async def _one(self, n: int, kind: str) -> None:
        x, run_id = n % 7, f"run-{n}"
        how = self.chance.random()
        if how < 0.2:
            run_id = event_run_id("/chaos", str(n))
            event = orjson.dumps({"specversion": "1.0", "id": str(n), "source": "/chaos", "type": "t", "data": x})
            await self._insist("trigger", lambda: self.noria.broker.triggers.publish(kind, event, {}))
        else:
            await self._insist("start", lambda: self.noria.create_run(FLOWS[kind], run_id).start_async(x))
        run = self.noria.create_run(FLOWS[kind], run_id)
        if how > 0.9:
            await self._insist("cancel", lambda: run.cancel(timeout=60))
            end = await self._insist("", lambda: run.result())
            self.wanted[run_id] = (kind, end.status, end.result)
            assert end.status == "canceled" or end.result == expected(kind, x), (run_id, end)
            return
        self.wanted[run_id] = (kind, "success", expected(kind, x))
        result = await self._insist("", lambda: run.result())
        if kind == "asks":
            assert result.status == "suspended", result
            result = await self._insist("resume", lambda: run.resume(100))
        assert (result.status, result.result) == ("success", expected(kind, x)), (run_id, result)

    async def _insist(self, what: str, call: Callable[[], Awaitable[T]]) -> Any:
        """Ask again while the broker cannot be reached; what was done by then counts as done."""
        while True:
            try:
                answer = await call()
            except BrokerUnavailable:
                self.retried[what] += 1
                await asyncio.sleep(0.2)
                continue
            except RunAlreadyStarted:
                answer = None
            if what:
                self.acknowledged[what] += 1
            return answer

    async def check(self, journal: Path, *, most_repeated: int) -> str:
        """Everything that was acknowledged came true, nothing was recorded twice; the counts as a line."""
        for run_id, (kind, status, result) in self.wanted.items():
            record = await self.noria.runs.get(run_id, kind)
            assert record is not None and (record.status, record.result) == (status, result), (run_id, record)
        recorded = Counter[tuple[str, str, str, int]]()
        for run_id, (kind, *_) in self.wanted.items():
            for entry in await self.noria.broker.log.read_tree(ActorKey(kind, run_id)):
                recorded.update((run_id, entry.actor.path, f.step, f.round) for f in decode(entry.body).facts if isinstance(f, StepEnded))
        assert {place: times for place, times in recorded.items() if times > 1} == {}, "a result was recorded twice"
        assert await self.noria.dead.list() == []
        calls = Counter(line.split()[1] for line in journal.read_text().splitlines())
        by_rights = {key: 2 if ":ask:" in key else 1 for key in calls}  # one that asks for a resume is called again with it
        repeated = sum(max(0, times - by_rights[key]) for key, times in calls.items())
        assert repeated <= most_repeated, f"{repeated} steps ran again, at most {most_repeated} were in flight"
        return (
            f"{len(self.wanted)} runs, {sum(recorded.values())} results each recorded once, {repeated} steps ran again; "
            f"acknowledged {dict(self.acknowledged)}, asked again {dict(self.retried)}"
        )


async def mishaps(count: int, seconds: float, seed: int, strike: Callable[[random.Random], Awaitable[None] | None]) -> None:
    """Strike at random moments within the time."""
    chance = random.Random(seed)
    moments, began = sorted(chance.random() * seconds for _ in range(count)), time.monotonic()
    for moment in moments:
        await asyncio.sleep(max(0.0, began + moment - time.monotonic()))
        done = strike(chance)
        if done is not None:
            await done

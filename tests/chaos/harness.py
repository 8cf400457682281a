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
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson

from noria import Noria, RunAlreadyStarted
from noria.contract.envelopes import decode
from noria.contract.facts import StepEnded, StepSuspended
from noria.embedded import EmbeddedServer, start_server
from noria.errors import BrokerUnavailable, NoWorker
from noria.ids import event_run_id
from noria.ports import ActorKey
from tests.chaos.flows import FLOWS, expected
from tests.chaos.journal import Mishap, calls, place, repeated

ROOT = Path(__file__).parents[2]
T = TypeVar("T")


class Workers:
    """Worker processes that are started again when they die."""

    def __init__(self, url: str, namespace: str, journal: Path, count: int = 2, lease: float = 1.5, replicas: int = 1) -> None:
        self._args = [url, namespace, str(journal), str(lease), str(replicas)]
        self._journal = journal
        self._count, self.processes = count, list[subprocess.Popen[bytes]]()
        self.mishaps: list[Mishap] = []

    def start(self) -> subprocess.Popen[bytes]:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "actors"), os.environ.get("PYTHONPATH", "")])}
        process = subprocess.Popen([sys.executable, "-m", "tests.chaos.flows", *self._args], stdout=subprocess.DEVNULL, env=env, cwd=ROOT)
        self.processes.append(process)
        return process

    async def kill_one(self, chance: random.Random) -> None:
        """SIGKILL one that is under load, at a random moment; another one takes its place at once. Not when a step begins:
        then the first run that is hosted after each kill would be one that kills its worker, which is poison."""
        victim = await self.busy(chance)
        await asyncio.sleep(chance.random())
        self.processes.remove(victim)
        victim.kill()
        victim.wait()
        self.mishaps.append(Mishap(time.time(), time.time(), victim.pid))
        self.start()

    async def busy(self, chance: random.Random) -> subprocess.Popen[bytes]:
        """One that began a step a moment ago; any, when none did for long."""
        end, size = time.monotonic() + 5, self._journal.stat().st_size if self._journal.exists() else 0
        while time.monotonic() < end:
            await asyncio.sleep(0.01)
            pids = {call.pid for call in calls(self._journal, size)}
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
        self._store, self.mishaps = store, list[Mishap]()

    async def __aenter__(self) -> Server:
        self._server: EmbeddedServer = await start_server(self._store)
        self.url = self._server.url
        return self

    async def kill(self, down_seconds: float = 0.0) -> None:
        began = time.time()
        os.kill(self._server.pid, signal.SIGKILL)
        await asyncio.to_thread(self._server.process.wait)
        await asyncio.sleep(down_seconds)
        self._server = await start_server(self._store, int(self.url.rpartition(":")[2]))
        self.mishaps.append(Mishap(began, time.time()))

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()


class Load:
    """Starts, resumes, cancels and triggers; what was acknowledged is remembered and must come true."""

    def __init__(self, noria: Noria, seed: int) -> None:
        self.noria, self.chance = noria, random.Random(seed)
        self.acknowledged, self.retried = Counter[str](), Counter[str]()
        self.begun: dict[str, str] = {}  # run id -> workflow
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
        x, how = n % 7, self.chance.random()
        run_id = event_run_id("/chaos", str(n)) if how < 0.2 else f"run-{n}"
        self.begun[run_id] = kind
        if how < 0.2:
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
        """Ask again while the broker or the workers cannot be reached; what was done by then counts as done."""
        while True:
            try:
                answer = await call()
            except (BrokerUnavailable, NoWorker, TimeoutError):
                self.retried[what] += 1
                await asyncio.sleep(0.2)
                continue
            except RunAlreadyStarted:
                answer = None
            if what:
                self.acknowledged[what] += 1
            return answer

    async def recorded(self, kind: type[StepEnded | StepSuspended] = StepEnded) -> Counter[tuple[str, str, str, int]]:
        """How often there is such a fact of each step: run, path, step, round."""
        found = Counter[tuple[str, str, str, int]]()
        for run_id, workflow in list(self.begun.items()):
            for entry in await self.noria.broker.log.read_tree(ActorKey(workflow, run_id)):
                found.update((run_id, entry.actor.path, f.step, f.round) for f in decode(entry.body).facts if isinstance(f, kind))
        return found

    async def in_flight(self, journal: Path, pid: int) -> set[str]:
        """Keys of the calls that the process began and whose outcome is not recorded; it must stand still."""
        ended, suspended = await self.recorded(), await self.recorded(StepSuspended)
        mine = [call for call in calls(journal) if call.pid == pid]
        return {call.key for call in mine if place(call) not in ended and not (call.key.endswith("+") and place(call) in suspended)}

    async def check(self, journal: Path, mishaps: Sequence[Mishap]) -> str:
        """Everything that was acknowledged came true, nothing was recorded twice, no step ran again without a mishap; the
        counts as a line."""
        for run_id, (kind, status, result) in self.wanted.items():
            record = await self.noria.runs.get(run_id, kind)
            assert record is not None and (record.status, record.result) == (status, result), (run_id, record)
        recorded = await self.recorded()
        assert {place: times for place, times in recorded.items() if times > 1} == {}, "a result was recorded twice"
        assert await self.noria.dead.list() == []
        again = repeated(calls(journal))
        without = [pair for pair in again if not any(m.excuses(pair[0]) for m in mishaps)]
        assert not without, f"ran again though nothing had happened to their hosts: {without}, {mishaps}"
        return (
            f"{len(self.wanted)} runs, {sum(recorded.values())} results each recorded once, {len(again)} steps ran again; "
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

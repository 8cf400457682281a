"""Three nodes, three replicas: the stream's leader dies under load, then another node after the first is back."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from noria import Noria
from noria.ports import ActorKey
from tests.chaos.cluster import Cluster
from tests.chaos.harness import Load, Workers
from tests.chaos.journal import Mishap

pytestmark = pytest.mark.skipif(bool(os.environ.get("NORIA_TEST_NATS")), reason="needs servers of its own")
SHORT = pytest.param(30, 12.0, id="short", marks=pytest.mark.timeout(120))
ELECTION_SECONDS = 15.0  # until all streams and consumers that the node led have another leader
LONG = pytest.param(200, 40.0, id="long", marks=[pytest.mark.chaos, pytest.mark.timeout(600)])


async def outages(noria: Noria, done: asyncio.Event) -> list[float]:
    """Gaps of more than a second between acknowledged appends of one writer, in seconds."""
    gaps, n, last = list[float](), 0, time.monotonic()
    while not done.is_set():
        try:
            await noria.broker.log.append(ActorKey("probe", f"p{n}"), b"{}", 0)
        except Exception:
            continue
        n, now = n + 1, time.monotonic()
        if now - last > 1:
            gaps.append(now - last)
        last = now
        await asyncio.sleep(0.05)
    return gaps


@pytest.mark.parametrize(("runs", "seconds"), [SHORT, LONG])
async def test_nodes_die(tmp_path: Path, runs: int, seconds: float, capsys: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "journal"
    async with (
        Cluster(tmp_path) as cluster, Noria.connect(cluster.urls, replicas=3) as noria,
        Workers(cluster.urls, "noria", journal, lease=5, replicas=3),
    ):  # fmt: skip
        await noria.broker.provision()
        load, done, connection, stream = Load(noria, 1), asyncio.Event(), noria.broker.connection, noria.broker.subjects.runs
        measured = asyncio.create_task(outages(noria, done))
        driving = asyncio.create_task(load.drive(runs, seconds))
        await asyncio.sleep(seconds / 6)
        first = await cluster.leader(connection, stream)
        mishaps = [time.time()]
        cluster.kill(first)
        await asyncio.sleep(seconds / 6)
        cluster.revive(first)
        await cluster.whole(connection, stream)
        leads = await cluster.leader(connection, stream)
        second = leads if leads != first else (first + 1) % 3  # the one that came back may lead again
        mishaps.append(time.time())
        cluster.kill(second)
        await driving
        done.set()
        gaps = await measured
        said = await load.check(journal, [Mishap(at, at + ELECTION_SECONDS) for at in mishaps])
    with capsys.disabled():
        print(f"\nthe leader n{first}, then n{second} (n{leads} led) killed: outages {[round(g, 1) for g in gaps]} s; {said}")
    assert gaps and max(gaps) < 25

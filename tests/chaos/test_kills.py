"""Workers and the server die at random moments under load: what was acknowledged ends right."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from noria import Noria
from tests.chaos.harness import Load, Server, Workers, mishaps

pytestmark = pytest.mark.skipif(bool(os.environ.get("NORIA_TEST_NATS")), reason="kills the server: needs one of its own")
SHORT, LONG = pytest.param(30, 3, id="short"), pytest.param(200, 20, id="long", marks=[pytest.mark.chaos, pytest.mark.timeout(600)])
SEED = int(os.environ.get("NORIA_SEED", "1"))


def spread(runs: int, kills: int) -> float:
    """Seconds that the load takes to begin."""
    return max(runs * 0.05, kills * 1.0)


@pytest.mark.parametrize(("runs", "kills"), [SHORT, LONG])
async def test_workers_die(tmp_path: Path, runs: int, kills: int, capsys: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "journal"
    async with Server(tmp_path / "store") as server, Noria.connect(server.url) as noria, Workers(server.url, "noria", journal) as workers:
        load, seconds = Load(noria, SEED), spread(runs, kills)
        await asyncio.gather(load.drive(runs, seconds), mishaps(kills, seconds, SEED, workers.kill_one))
        said = await load.check(journal, workers.mishaps)
    with capsys.disabled():
        print(f"\n{len(workers.mishaps)} workers killed: {said}")
    assert len(workers.mishaps) == kills


@pytest.mark.parametrize(("runs", "kills"), [pytest.param(30, 2, id="short"), LONG])
async def test_the_server_dies(tmp_path: Path, runs: int, kills: int, capsys: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "journal"
    async with Server(tmp_path / "store") as server, Noria.connect(server.url) as noria, Workers(server.url, "noria", journal):
        load, seconds = Load(noria, SEED), spread(runs, kills)
        await asyncio.gather(load.drive(runs, seconds), mishaps(kills, seconds, SEED, lambda chance: server.kill(chance.random())))
        said = await load.check(journal, server.mishaps)
    with capsys.disabled():
        print(f"\nthe server killed {len(server.mishaps)} times: {said}")
    assert len(server.mishaps) == kills


@pytest.mark.parametrize(("runs", "kills"), [pytest.param(20, 2, id="short"), LONG])
async def test_both_die(tmp_path: Path, runs: int, kills: int, capsys: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "journal"
    async with Server(tmp_path / "store") as server, Noria.connect(server.url) as noria, Workers(server.url, "noria", journal) as workers:

        async def strike(chance) -> None:
            await workers.kill_one(chance)
            await server.kill(chance.random() / 2)

        load, seconds = Load(noria, SEED), spread(runs, kills)
        await asyncio.gather(load.drive(runs, seconds), mishaps(kills, seconds, SEED, strike))
        said = await load.check(journal, [*workers.mishaps, *server.mishaps])
    with capsys.disabled():
        print(f"\n{len(workers.mishaps)} workers and the server {len(server.mishaps)} times killed: {said}")

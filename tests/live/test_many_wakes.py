"""Many runs that wake at one time: what each of them asks the server for, which is what all of them wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import time
from typing import Any

import orjson
import pytest

from noria import Context, Noria, Workflow, step
from noria.actor import sleeping
from noria.client import waiting
from noria.client.waiting import _Watch  # pyright: ignore[reportPrivateUsage]
from noria.contract import commands
from noria.ports import ActorKey, RunKey

MANY = 20


@step
async def ask(x: Any, ctx: Context) -> Any:
    return x if ctx.resume_data is not None else ctx.suspend()


@asynccontextmanager
async def reads(noria: Noria) -> AsyncIterator[list[str]]:
    """What is read of the log and the commands, by whomever: exact subjects as they are, searches as "search", and "count"
    for what the server knows without one."""
    seen: list[str] = []
    async with Noria.connect(noria.url) as watcher:
        api = f"$JS.API.DIRECT.GET.{noria.broker.subjects.runs}"  # type: ignore[attr-defined]
        connection: Any = watcher.broker.connection  # type: ignore[attr-defined]

        def asked(msg: Any) -> None:
            wish = orjson.loads(msg.data or b"{}")
            seen.append(msg.subject.removeprefix(f"{api}.") if not wish else "count" if (wish["seq"], wish["batch"]) == (1, 1) else "search")

        for subject in (api, f"{api}.>"):
            await connection.subscribe(subject, asked)
        await connection.client.flush()
        yield seen
        await connection.client.flush()


@asynccontextmanager
async def rests(noria: Noria, workflow: str, count: int) -> AsyncIterator[None]:
    """Waits until so many runs came to rest."""
    done, left = asyncio.Event(), count

    def rested(*_: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    stop = await noria.broker.news.on_rests(workflow, rested)
    yield
    async with asyncio.timeout(60):
        await done.wait()
    await stop()


async def test_a_sleep_that_is_over_searches_nothing(noria: Noria, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for the first timer of a run nor for a later one; whatever the others store meanwhile."""
    monkeypatch.setattr(sleeping, "LINGER_SECONDS", 0.3)
    flow = Workflow("naps").sleep(1.5).map(lambda x: x).sleep(1.5).commit()
    async with noria.worker(flow, lease=30), reads(noria) as seen:
        async with rests(noria, "naps", MANY):
            await asyncio.gather(*(noria.create_run(flow).start_async(n) for n in range(MANY)))
        assert (await noria.runs.list(flow, status="success")).total == MANY
    assert seen.count("search") == 0 and seen.count("count") == 2 * MANY


async def test_who_waits_for_a_run_that_is_on_its_way_reads_no_more_than_where_it_is(noria: Noria) -> None:
    due = int(time()) + 3600
    flow = Workflow("watched").sleep_until(datetime.fromtimestamp(due, UTC)).then(ask).commit()
    woken, cancelled = noria.create_run(flow, "woken"), noria.create_run(flow, "cancelled")
    key = RunKey("watched", "woken")
    await woken.start_async(1)
    await cancelled.start_async(2)
    watch = _Watch(noria.broker, key, 1, False, False)
    async with reads(noria) as seen:
        assert await watch._look() is None  # pending
        async with noria.worker(flow):
            while (await noria.runs.list(flow, status="waiting")).total < 2:
                await asyncio.sleep(0.05)
        seen.clear()
        assert await watch._look() is None  # asleep
        await noria.broker.commands.send(ActorKey(*key), commands.encode(commands.TimerFired("t", time(), "", "sleep-1", due)))
        for _ in range(waiting.LOOKS_UNREAD):
            assert await watch._look() is None  # woken, and nobody hosts it
        async with asyncio.timeout(30):
            while len(seen) < 2 * (1 + waiting.LOOKS_UNREAD):
                await asyncio.sleep(0.01)
            assert "search" not in seen
            assert await watch._look() is None
            while "search" not in seen:  # to be sure
                await asyncio.sleep(0.01)
    await cancelled.cancel()
    ended = await _Watch(noria.broker, RunKey("watched", "cancelled"), 1, False, False)._look()
    assert ended is not None and ended["status"] == "canceled"
    async with noria.worker(flow):
        assert (await woken.result(timeout=30)).status == "suspended"
        shown = await watch._look()
        assert shown is not None and shown["status"] == "suspended"
        unseen = _Watch(noria.broker, key, 1_000_000, False, False)  # a resume that nobody consumed yet
        assert await unseen._look() is None

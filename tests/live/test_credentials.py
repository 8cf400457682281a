"""The server ceases to know a user under a running worker and a waiting client: both say so, and go on once it does again."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.live.servers import server

from noria import BrokerUnavailable, Context, Noria, Workflow, step
from noria.broker import appends, connection, reading

USER = "authorization {\n users: [{user: w, password: %s}]\n}"
calls: list[str] = []


@step
async def work(x: int, ctx: Context) -> int:
    calls.append(ctx.run_id)
    await asyncio.sleep(1.5)
    return x + 1


@step
async def ask(x: int, ctx: Context) -> int:
    return ctx.suspend() if ctx.resume_data is None else x + ctx.resume_data


flow = Workflow("flow").then(work).then(ask).commit()


async def test_a_user_who_is_revoked_is_told_and_goes_on_when_let_in_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (appends, connection, reading):
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 1.0)
    calls.clear()
    with server(tmp_path) as nats:
        nats.configure(USER % "one")
        await nats.start(user="w", password="one")
        async with (
            Noria.connect(nats.url, user="w", password="one") as hosting,
            Noria.connect(nats.url, user="w", password="one") as client,
            hosting.worker(flow, lease=5),
        ):
            run = client.create_run("flow", "r1")
            waiting = asyncio.create_task(run.start(1))
            async with asyncio.timeout(20):
                while not calls:
                    await asyncio.sleep(0.02)
            nats.reload(USER % "two")
            async with asyncio.timeout(20):
                while hosting.broker.connected or client.broker.connected:
                    await asyncio.sleep(0.02)
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="refuses this user"):
                await run.get()
            with pytest.raises((TimeoutError, BrokerUnavailable), match="refuses this user"):
                await client.create_run(flow).start(1, timeout=1)
            with pytest.raises(BrokerUnavailable, match="refuses this user"):
                async for _ in client.create_run("flow", "r2").observe():
                    pass
            assert time.monotonic() - began < 40
            assert "give it its rights back, or start again with credentials that are right" in caplog.text
            assert not waiting.done()
            nats.reload(USER % "one")
            result = await asyncio.wait_for(waiting, 60)
            assert (result.status, calls.count("r1")) == ("suspended", 1)
            assert (await asyncio.wait_for(run.resume(5), 60)).result == 7

"""Somebody deletes a stream or a bucket under live runs: everybody is told which one, nobody spins, and it goes on once it is back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.live.servers import server

from noria import BrokerUnavailable, Context, Noria, Workflow, step
from noria.broker import appends, reading


@step
async def ask(x: int, ctx: Context) -> int:
    return ctx.resume_data if ctx.resume_data is not None else ctx.suspend({"x": x})


flow = Workflow("flow").then(ask).commit()


async def test_a_bucket_of_records_that_was_deleted_is_named_and_nothing_is_lost(noria: Noria, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reading, appends):
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 1.0)
    bucket = f"KV_{noria.broker.subjects.records}"
    async with noria.worker(flow, lease=2):
        run = noria.create_run(flow, "r1")
        assert (await run.start(1)).status == "suspended"
        await noria.broker.connection.api(f"STREAM.DELETE.{bucket}")
        under_way = asyncio.create_task(noria.run(flow, 2))  # its id is new: nothing is read before it is sent
        began, spent = time.monotonic(), time.process_time()
        for call in (run.get, lambda: run.resume(5), lambda: noria.create_run(flow, "r2").start(1)):
            with pytest.raises(BrokerUnavailable, match=f"no stream '{bucket}' any more: noria infra apply"):
                await asyncio.wait_for(call(), 20)
        await asyncio.sleep(1)
        assert time.process_time() - spent < 0.6 * (time.monotonic() - began), "nobody spins"
        monkeypatch.undo()
        await noria.infra.apply()
        assert (await asyncio.wait_for(run.resume(5), 30)).result == 5
        assert (await asyncio.wait_for(under_way, 60)).status == "suspended"
        record = await run.get()
        assert record is not None and record.status == "success"


async def test_a_stream_of_runs_that_was_deleted_is_named(noria: Noria, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reading, appends):
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 1.0)
    async with noria.worker(flow, lease=2):
        await noria.broker.connection.api(f"STREAM.DELETE.{noria.broker.subjects.runs}")
        with pytest.raises(BrokerUnavailable, match=f"no stream '{noria.broker.subjects.runs}' any more"):
            await asyncio.wait_for(noria.create_run(flow).start_async(1), 20)
        monkeypatch.undo()
        await noria.infra.apply()
        assert (await asyncio.wait_for(noria.run(flow, 1), 60)).status == "suspended"


@pytest.mark.parametrize("kind", ["KV_{0.records}", "{0.runs}"])
async def test_a_time_out_holds_and_says_what_is_missing(noria: Noria, kind: str) -> None:
    """Whoever asks with a time-out does not wait for as long as NATS is given otherwise (20 s)."""
    name = kind.format(noria.broker.subjects)
    async with noria.worker(flow, lease=2):
        run = noria.create_run(flow, "r1")
        assert (await run.start(1)).status == "suspended"
        await noria.broker.connection.api(f"STREAM.DELETE.{name}")
        calls = {
            "start": noria.create_run(flow, "r2").start(1, timeout=1),
            "result": run.result(timeout=1),
            "cancel": run.cancel(timeout=1),
            "restart": run.restart(timeout=1),
            "stream": noria.create_run(flow, "r3").stream(1, timeout=1).result(),
        }
        began = time.monotonic()
        errors = await asyncio.wait_for(asyncio.gather(*calls.values(), return_exceptions=True), 60)
        assert time.monotonic() - began < 12
        for call, error in zip(calls, errors, strict=True):
            assert isinstance(error, BrokerUnavailable if call != "result" else TimeoutError), (call, error)
            assert f"no stream {name!r} any more: noria infra apply" in str(error), call
        await noria.infra.apply()
        assert (await asyncio.wait_for(noria.run(flow, 1), 60)).status == "suspended"


async def test_a_time_out_holds_while_nats_is_silent(tmp_path: Path) -> None:
    with server(tmp_path) as nats:
        nats.configure()
        await nats.start()
        async with Noria.connect(nats.url) as noria, noria.worker(flow):
            run = noria.create_run(flow)
            assert (await run.start(1)).status == "suspended"
            with nats.frozen():
                began = time.monotonic()
                calls = run.result(timeout=1), run.cancel(timeout=1), noria.create_run(flow).start(1, timeout=1)
                errors = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
                assert time.monotonic() - began < 12
            assert all(isinstance(e, TimeoutError) and "did not answer in time" in str(e) for e in errors), errors
            assert (await run.resume(7)).result == 7

"""No room for what runs record: everybody is told which limit is reached, nothing is lost, no step runs again for it, and all
goes on by itself once there is room."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.live.servers import server

from noria import BrokerUnavailable, Context, Noria, Workflow, step
from noria.broker import appends

ACCOUNT = "accounts {\n A {\n jetstream: { max_file: %s }\n users: [{user: a, password: a}]\n }\n}\nno_auth_user: a"


async def test_of_a_full_account_nothing_is_lost_and_no_step_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(appends, "PATIENCE_SECONDS", 0.5)
    calls = list[str]()

    @step
    async def grow(n: int, ctx: Context) -> str:
        calls.append(ctx.run_id)
        return os.urandom(n // 2).hex()

    flow = Workflow("grows").then(grow).commit()
    with server(tmp_path) as nats:
        nats.configure(ACCOUNT % "8MB")
        await nats.start()
        async with Noria.connect(nats.url) as noria, noria.worker(flow, lease=2):
            large = asyncio.create_task(noria.run(flow, 12_000_000, run_id="large"))
            async with asyncio.timeout(60):
                while len([r for r in caplog.records if "keeps what it has to record" in r.getMessage()]) < 8:  # more tries than poison has
                    await asyncio.sleep(0.1)
            assert "of max_file 8388608: raise it, or delete runs" in caplog.text
            with pytest.raises(BrokerUnavailable, match="of max_file 8388608"):
                await noria.create_run(flow).start_async(1, state={"x": "y" * 6_000_000})
            (line,) = [detail for name, _, detail in await noria.doctor() if name == "jetstream"]
            assert "of 8388608 bytes of storage used" in line
            assert not large.done() and calls == ["large"]
            nats.reload(ACCOUNT % "100MB")
            result = await asyncio.wait_for(large, 60)
            assert (result.status, len(result.result)) == ("success", 12_000_000)
            assert calls == ["large"] and await noria.dead.list() == []


async def test_a_run_ends_though_there_is_no_room_for_its_record(noria: Noria, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appends, "PATIENCE_SECONDS", 0.5)
    flow = Workflow("w").then(step(lambda x: "x" * 50_000, id="work")).commit()
    api, bucket = noria.broker.connection.api, f"KV_{noria.broker.subjects.records}"
    async with noria.worker(flow, lease=2):
        config = (await api(f"STREAM.INFO.{bucket}"))["config"]
        assert "error" not in await api(f"STREAM.UPDATE.{bucket}", {**config, "max_bytes": 20_000})
        runs = [noria.create_run(flow, f"r{n}") for n in range(3)]
        results = await asyncio.wait_for(asyncio.gather(*(run.start(1) for run in runs)), 60)
        assert {r.status for r in results} == {"success"}
        (line,) = [(ok, detail) for name, ok, detail in await noria.doctor() if name == bucket]
        assert line[0] and "of max_bytes 20000 used" in line[1]
        assert "error" not in await api(f"STREAM.UPDATE.{bucket}", {**config, "max_bytes": -1})
        async with asyncio.timeout(60):
            while (await noria.runs.list(flow, status="success")).total < 3:
                await asyncio.sleep(0.1)


async def test_a_stream_that_drops_what_is_oldest_is_reported(noria: Noria) -> None:
    await noria.broker.provision()
    api, name = noria.broker.connection.api, noria.broker.subjects.runs
    config = (await api(f"STREAM.INFO.{name}"))["config"]
    assert "error" not in await api(f"STREAM.UPDATE.{name}", {**config, "max_bytes": 1 << 30})
    (line,) = [(ok, detail) for found, ok, detail in await noria.doctor() if found == name]
    assert not line[0] and f"nats stream edit {name} --max-bytes=-1" in line[1]

"""Every limit says what was too much, how much it was, and what is allowed; nothing hangs, nothing else suffers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.live.servers import server

from noria import Context, DefinitionError, InvalidInput, Noria, Retry, Workflow, step
from noria.actor import activation, host, journal, parcels
from noria.broker import connection
from noria.contract import commands
from noria.errors import LimitExceeded
from noria.limits import MAX_CHILDREN, MAX_NESTING
from noria.ports import ActorKey


@step
async def grow(n: int) -> str:
    return "x" * n


@step
async def same(x: str) -> str:
    return x


@pytest.mark.parametrize(
    ("flow", "place"),
    [
        (Workflow("w").then(grow).then(same).commit(), "step 'grow'"),
        (Workflow("w").map({"n": 1}).map(lambda prev: "x" * 300_000, id="wide").commit(), "mapping 'wide'"),
        (Workflow("w").parallel(grow, step(lambda n: n, id="small")).commit(), "step 'grow'"),
    ],
)
async def test_a_result_that_is_too_large_fails_its_step(noria: Noria, monkeypatch: pytest.MonkeyPatch, flow: Workflow, place: str) -> None:
    monkeypatch.setattr(journal, "MAX_VALUE_BYTES", 200_000)
    async with noria.worker(flow):
        result = await noria.run(flow, 300_000)
        assert result.status == "failed" and result.error is not None and result.error.type == "LimitExceeded"
        assert place in result.error.message and "at most 200000" in result.error.message
        assert (await noria.run(flow, 100)).status == "success" or "wide" in place


async def test_an_input_that_is_too_large_is_refused_before_anything_is_stored(noria: Noria, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcels, "MAX_VALUE_BYTES", 200_000)
    run = noria.create_run(Workflow("w").then(same).commit(), resource_id="r" * 1024)
    with pytest.raises(InvalidInput, match="at most 200000"):
        await run.start_async("x" * 200_000)
    assert await run.get() is None
    with pytest.raises(InvalidInput, match="at most 1024"):
        noria.create_run("w", resource_id="r" * 1025)


async def test_large_values_pass_where_the_servers_max_payload_is_small(tmp_path: Path) -> None:
    flow = Workflow("w").then(grow).then(same).commit()
    with server(tmp_path) as nats:
        nats.configure("max_payload: 32KB")
        await nats.start()
        async with Noria.connect(nats.url) as noria, Noria.connect(nats.url, via="api") as guest, noria.worker(flow):
            result = await noria.run(flow, 1_000_000, timeout=20)
            assert (result.status, len(result.result)) == ("success", 1_000_000)
            assert len((await noria.runs.get(result.run_id)).steps["same"].output) == 1_000_000
            for call in (guest.run("w", 100_000, timeout=20), guest.run("w", "x" * 100_000)):  # the answer; the request
                with pytest.raises(LimitExceeded, match="max_payload of 32768 bytes"):
                    await asyncio.wait_for(call, 30)


async def test_a_server_that_takes_less_than_it_did_gets_references(tmp_path: Path) -> None:
    rounds = list[int]()

    @step
    async def again(x: str, ctx: Context) -> str:
        rounds.append(ctx.iteration)
        await asyncio.sleep(0.05)
        return x

    flow = Workflow("w").do_until(again, lambda _, ctx: ctx.iteration >= 40).commit()
    with server(tmp_path) as nats:
        nats.configure("max_payload: 1MB")
        await nats.start()
        async with Noria.connect(nats.url) as noria, noria.worker(flow, lease=5):
            running = asyncio.create_task(noria.run(flow, "x" * 100_000))
            async with asyncio.timeout(20):
                while len(rounds) < 5:
                    await asyncio.sleep(0.02)
            nats.reload("max_payload: 64KB")
            result = await asyncio.wait_for(running, 60)
            assert (result.status, len(result.result)) == ("success", 100_000) and max(rounds) < 40


async def test_of_what_a_step_writes_in_one_go_nothing_is_dropped(tmp_path: Path) -> None:
    """JetStream drops, without a word, what comes faster than it stores beyond what it buffers."""

    @step
    async def write(n: int, ctx: Context) -> int:
        for k in range(n):
            await ctx.write(k)
        return n

    flow = Workflow("w").then(write).commit()
    with server(tmp_path) as nats:
        nats.configure(jetstream="max_buffered_msgs: 1000")
        await nats.start()
        async with Noria.connect(nats.url) as noria, noria.worker(flow):
            run = noria.create_run(flow)
            assert (await run.start(20_000, timeout=60)).status == "success"
            async with asyncio.timeout(60):
                seen = [e.data["output"] async for e in run.observe() if e.type == "workflow-step-output"]
            assert seen == [*range(20_000)]


async def test_a_server_that_takes_too_little_is_refused(tmp_path: Path) -> None:
    with server(tmp_path) as nats:
        nats.configure("max_payload: 8KB")
        with pytest.raises(LimitExceeded, match="is 8192 bytes: Noria needs 16384"):
            async with asyncio.timeout(30):
                await nats.start()


async def test_a_foreach_has_a_limit(noria: Noria) -> None:
    flow = Workflow("w").map(lambda n: [0] * n).foreach(step(lambda x: x, id="each")).commit()
    async with noria.worker(flow):
        result = await noria.run(flow, MAX_CHILDREN + 1)
    assert result.status == "failed" and result.error is not None and result.error.type == "LimitExceeded"
    assert "100001 items, at most 100000" in result.error.message


async def test_a_log_has_a_limit(noria: Noria, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "MAX_LOG_MESSAGES", 2000)
    flow = Workflow("w").do_while(step(lambda x: x, id="again"), lambda prev: True).commit()
    async with noria.worker(flow):
        result = await noria.run(flow, 1, timeout=30)
    assert result.status == "failed" and result.error is not None and result.error.type == "LimitExceeded"
    assert "at most 2000" in result.error.message and result.steps["again"].iterations >= 2000


async def test_nesting_has_a_limit(noria: Noria) -> None:
    flow = Workflow("n0").then(same)
    for n in range(1, MAX_NESTING):
        flow = Workflow(f"n{n}").then(flow)
    flow.commit()
    with pytest.raises(DefinitionError, match="33 deep, at most 32"):
        Workflow("deeper").then(flow).commit()
    async with noria.worker(flow):
        assert (await noria.run(flow, "x", timeout=20)).result == "x"


def test_attempts_have_a_limit_and_pauses_do_not_overflow() -> None:
    with pytest.raises(DefinitionError, match="at most 10000"):
        Retry(attempts=10_001)
    assert 0 < Retry(attempts=10_000, delay=1, backoff=10).pause(9_999, 0.0) <= 365 * 86400


async def test_a_sleep_for_ever_fails_its_entry(noria: Noria) -> None:
    flow = Workflow("w").sleep(1e15).commit()
    async with noria.worker(flow):
        result = await noria.run(flow, 1, timeout=10)
    assert result.status == "failed" and result.error is not None and "9999" in result.error.message


async def test_sends_beyond_what_may_be_in_flight_wait_their_turn(noria: Noria, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_IN_FLIGHT", 100)
    await noria.broker.provision()
    futures = [noria.broker.commands.send(ActorKey("w", f"r{n}"), b"x" * 1000, 0) for n in range(20_000)]
    assert len(noria.broker.connection._askers) <= 101
    assert len(set(await asyncio.gather(*futures))) == 20_000


async def test_a_flood_of_commands_to_one_run_is_not_kept_in_hand(noria: Noria, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "MAX_IN_HAND", 20)
    release = asyncio.Event()

    @step
    async def holds(x: int, ctx: Context) -> int:
        await release.wait()
        return x

    flow = Workflow("w").then(holds).commit()
    async with noria.worker(flow, lease=5, concurrency=5) as worker:
        run = noria.create_run(flow)
        await run.start_async(1)
        key = ActorKey("w", run.id)
        await asyncio.gather(*(noria.broker.commands.send(key, commands.encode(commands.Restart(str(n), 1.0))) for n in range(300)))
        await asyncio.sleep(0.5)
        held = [len(a.others) for a in worker.host._activations.values()]
        assert max(held) <= 20
        other = noria.create_run(flow)
        waiting = asyncio.create_task(other.start(2))
        release.set()
        assert (await run.result(timeout=10)).status == (await waiting).status == "success"
        async with asyncio.timeout(15):
            while (await noria.broker.connection.api(f"CONSUMER.INFO.{noria.broker.subjects.runs}.w-w"))["num_ack_pending"]:
                await asyncio.sleep(0.1)

"""The answer to a command is lost and the client asks again: what was asked for happens once. Starts, resumes, travels, forks,
schedules and deletions are in test_control_api.py."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.chaos.proxy import Proxy

from noria import Context, Noria, Workflow, step
from noria.client import remote_run
from noria.contract import commands
from noria.ports import ActorKey

Lose = Callable[[], asyncio.Future[None]]
EVENT = b'{"specversion":"1.0","id":"e1","source":"/s","type":"t","data":1}'
CLOUDEVENT = {"content-type": "application/cloudevents+json"}


class Case:
    """A worker with a workflow that counts its runs and waits until it may go on, and a client behind a bad line."""

    def __init__(self, noria: Noria, client: Noria, lose: Lose) -> None:
        self.noria, self.client, self.lose = noria, client, lose
        self.ran, self.go, self.began = Counter[str](), asyncio.Event(), asyncio.Event()

        @step
        async def count(x: Any, ctx: Context) -> Any:
            self.ran[ctx.run_id] += 1
            self.began.set()
            await self.go.wait()
            return x

        self.counting = Workflow("counting").then(count).commit()

    async def sent(self, run: str, kind: type[commands.Command]) -> int:
        stored = await self.noria.broker.commands.read(ActorKey("counting", run))
        return sum(isinstance(commands.decode(entry.body), kind) for entry in stored)


async def restarts(case: Case) -> None:
    run = case.client.create_run("counting", "r1")
    await case.noria.create_run(case.counting, "r1").start_async(5)
    await case.began.wait()
    lost = case.lose()
    restarting = asyncio.create_task(run.restart(timeout=8))
    async with asyncio.timeout(20):
        while not await case.sent("r1", commands.Restart):
            await asyncio.sleep(0.05)
    case.go.set()
    assert (await asyncio.wait_for(restarting, 40)).result == 5 and lost.done() and case.ran == {"r1": 1}


async def cancels(case: Case) -> None:
    await case.noria.create_run(case.counting, "r1").start_async(5)
    await case.began.wait()
    lost = case.lose()
    await asyncio.wait_for(case.client.create_run("counting", "r1").cancel(timeout=8), 40)
    record = await case.noria.runs.get("r1")
    assert record is not None and record.status == "canceled" and lost.done() and case.ran == {"r1": 1}


async def replays_a_run(case: Case) -> None:
    case.go.set()
    body = commands.encode(commands.Start("c", 1.0, 5))
    await case.noria.broker.triggers.bury("poison", "counting", body, {"noria-run": "former"}, "it died")
    (letter,) = await case.noria.dead.list()
    lost = case.lose()
    run_id = await asyncio.wait_for(case.client.dead.replay(letter.sequence), 40)
    assert run_id is not None and (await case.noria.create_run(case.counting, run_id).result(timeout=20)).result == 5
    assert lost.done() and case.ran == {run_id: 1} and (await case.noria.runs.list()).total == 1


async def replays_an_event(case: Case) -> None:
    """One that starts a run and one that never can: a second replay of this would be a third letter."""
    case.go.set()
    for body in (EVENT, b'{"specversion":"1.0"}'):
        await case.noria.broker.triggers.bury("trigger", "counting", body, CLOUDEVENT, "nobody took it")
        letter = (await case.noria.dead.list())[-1]
        lost = case.lose()
        assert await asyncio.wait_for(case.client.dead.replay(letter.sequence), 40) is None and lost.done()
    connection, subjects = case.noria.broker.connection, case.noria.broker.subjects
    async with asyncio.timeout(20):
        while True:
            info = await connection.api(f"CONSUMER.INFO.{subjects.triggers}.triggers")
            if not info["num_pending"] and not info["num_ack_pending"] and case.ran:
                break
            await asyncio.sleep(0.05)
    letters = await case.noria.dead.list()
    assert len(letters) == 3 and info["delivered"]["consumer_seq"] == 2, [letter.reason for letter in letters]
    assert list(case.ran.values()) == [1] and (await case.noria.runs.list()).total == 1


@pytest.mark.parametrize("via", ["streams", "api"])
@pytest.mark.parametrize("what", [restarts, cancels, replays_a_run, replays_an_event])
async def test_a_lost_answer_is_asked_for_again_and_nothing_happens_twice(
    noria: Noria, server_url: str, what: Any, via: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_run, "ANSWER_SECONDS", 1.0)  # asked again sooner
    marker = b"MSG " if via == "api" else b'"seq":'
    async with Proxy(server_url) as proxy, Noria.connect(proxy.url, namespace=noria.namespace, via=via) as client:
        if via == "streams":
            await client.broker.provision()
        case = Case(noria, client, lambda: proxy.lose(marker))
        async with noria.worker(case.counting):
            await what(case)

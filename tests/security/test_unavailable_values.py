"""What is stored and cannot be had: tampered with, sealed with a key that was rotated away, gone. The run waits and everybody
is told why; it is not passed over, it spins nowhere, its neighbours notice nothing, and it goes on when the value is back."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, NamedTuple

import pytest

from noria import Context, Noria, Workflow, step
from noria.codec import AesGcm
from noria.contract import commands
from noria.errors import NoriaError, ValueUnavailable
from noria.limits import MAX_INLINE_BYTES
from noria.ports import ActorKey, RunKey
from tests.conftest import drop

OLD, NEW = os.urandom(32), os.urandom(32)
VICTIM, KEY = RunKey("waits", "victim"), "a-key"
CASES = ["fact", "command", "record", "blob changed", "blob gone", "key rotated"]


@step
async def work(x: Any) -> Any:
    return {"large": "x" * MAX_INLINE_BYTES} if x == "large" else x


@step
async def ask(x: Any, ctx: Context) -> Any:
    if ctx.resume_data is None:
        ctx.suspend({"why": "ask"})
    return ctx.resume_data


waits = Workflow("waits").then(work).then(ask).commit()


class Spoiled(NamedTuple):
    """A message as it was, and the sequence of what is in its place now."""

    stream: str
    subject: str
    headers: bytes
    body: bytes
    sequence: int = 0

    @classmethod
    async def take(cls, noria: Noria, stream: str, wish: dict[str, Any]) -> Spoiled:
        """Remove a message."""
        found = (await noria.broker.connection.api(f"STREAM.MSG.GET.{stream}", wish))["message"]
        await noria.broker.connection.api(f"STREAM.MSG.DELETE.{stream}", {"seq": found["seq"]})
        lines = base64.b64decode(found.get("hdrs", "")).split(b"\r\n")[1:-2]
        headers = b"".join(line + b"\r\n" for line in lines if not line.startswith(b"Nats-Expected"))
        return cls(stream, found["subject"], headers, base64.b64decode(found["data"]))

    async def put(self, noria: Noria, body: bytes) -> int:
        return await noria.broker.connection.append(self.subject, body, None, self.headers)

    async def restore(self, noria: Noria) -> None:
        if self.sequence:
            await noria.broker.connection.api(f"STREAM.MSG.DELETE.{self.stream}", {"seq": self.sequence})
        await self.put(noria, self.body)


def changed(body: bytes) -> bytes:
    """Another character in the middle of what is sealed; a blob's is no text."""
    at = body.find(b'"sealed":"') + 60 if b'"sealed":"' in body else len(body) // 2
    return body[:at] + (b"A" if body[at : at + 1] != b"A" else b"B") + body[at + 1 :]


async def spoil(noria: Noria, case: str) -> Spoiled | None:
    """What was there before. The last blob is the record's."""
    subjects, victim = noria.broker.subjects, ActorKey(*VICTIM)
    match case:
        case "fact":
            stream, wish = subjects.runs, {"last_by_subj": subjects.of("run", victim)}
        case "command":
            stream, wish = subjects.runs, {"last_by_subj": subjects.of("in", victim)}
        case "record":
            stream, wish = f"KV_{subjects.records}", {"last_by_subj": subjects.record(VICTIM)}
        case "blob changed" | "blob gone":
            stream, wish = subjects.blobs, {"last_by_subj": subjects.blob(VICTIM)}
        case "first blob gone":
            stream, wish = subjects.blobs, {"seq": 1, "next_by_subj": subjects.blob(VICTIM)}
        case _:
            return None
    spoiled = await Spoiled.take(noria, stream, wish)
    return spoiled if case.endswith("gone") else spoiled._replace(sequence=await spoiled.put(noria, changed(spoiled.body)))


@pytest.fixture
async def noria(server_url: str) -> AsyncIterator[Noria]:
    async with Noria.connect(server_url, namespace=f"t{os.urandom(6).hex()}", codec=AesGcm({KEY: OLD})) as client:
        yield client
        await drop(client)


@pytest.mark.parametrize("case", CASES)
async def test_a_run_whose_values_cannot_be_had_waits_and_says_why(
    noria: Noria, server_url: str, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "noria")
    async with noria.worker(waits):
        for name in ("victim", "bystander"):
            given = "large" if name == "victim" and "blob" in case else "small"
            assert (await noria.create_run(waits, name).start(given)).status == "suspended"
    spoiled = await spoil(noria, case)
    keys = {"other": NEW} if case == "key rotated" else {KEY: OLD}
    async with Noria.connect(server_url, namespace=noria.namespace, codec=AesGcm(keys)) as late:
        told = rf"(?s){'gone' if case == 'blob gone' else KEY}"
        victim = late.create_run(waits, "victim")
        async with late.worker(waits):
            key = ActorKey(*VICTIM)
            await late.broker.commands.send(key, commands.encode(commands.Restart("c", 1.0)))  # somebody has to judge it
            calls = [victim.get, victim.result, partial(victim.resume, "fine"), victim.cancel, *([] if "blob" in case else [partial(_read, victim)])]
            for call in calls:
                with pytest.raises(ValueUnavailable, match=told) as error:
                    await asyncio.wait_for(call(), 10)
                assert "'victim'" in str(error.value)
            listed = {run.run_id: run.status for run in (await late.runs.list()).runs}
            assert listed == {"victim": "suspended", "bystander": "suspended"}
            if case != "key rotated":
                assert (await asyncio.wait_for(late.create_run(waits, "bystander").resume("fine"), 10)).result == "fine"
            assert (await asyncio.wait_for(late.run(waits, "new", run_id="new"), 10)).status == "suspended"
            await asyncio.sleep(2.5)
            words = [r.getMessage() for r in caplog.records if "victim" in r.getMessage()]
            assert 1 <= sum("steps back" in text or "left to others" in text for text in words) <= 8, "it is tried again, but less and less often"
            assert not [r for r in caplog.records if r.exc_info], "nothing unexpected"
            with pytest.raises(ValueUnavailable, match="force=True"):
                await late.runs.delete("victim", waits)
        if spoiled is not None:
            await spoiled.restore(noria)
    async with Noria.connect(server_url, namespace=noria.namespace, codec=AesGcm({KEY: OLD, **keys})) as later, later.worker(waits):
        run = later.create_run(waits, "victim")
        assert (await asyncio.wait_for(run.resume("back"), 20)).result == "back"


async def _read(run: Any) -> list[Any]:
    return [event async for event in run.observe()]


@pytest.mark.parametrize("case", [case for case in CASES if case != "key rotated"])
async def test_with_force_it_is_deleted_unread(noria: Noria, case: str) -> None:
    async with noria.worker(waits):
        run = noria.create_run(waits, "victim")
        assert (await run.start("large" if "blob" in case else "small")).status == "suspended"
        await spoil(noria, case)
        await noria.runs.delete("victim", waits, force=True)
        assert await run.get() is None and (await noria.runs.list()).total == 0
        assert (await asyncio.wait_for(noria.run(waits, "next"), 10)).status == "suspended"


async def test_who_watches_is_told_which_value_is_gone(noria: Noria) -> None:
    async with noria.worker(waits):
        run = noria.create_run(waits, "victim")
        assert (await run.start("large")).status == "suspended"
        spoiled = await spoil(noria, "first blob gone")
        with pytest.raises(ValueUnavailable, match="'victim' of workflow 'waits' is gone"):
            await asyncio.wait_for(_read(run), 10)
        assert (await run.get()).status == "suspended", "the record holds it, too"
        assert spoiled is not None
        await spoiled.restore(noria)
        assert (await asyncio.wait_for(run.resume("back"), 20)).result == "back"
        assert [event.type for event in await _read(run)][-1] == "workflow-finish"


async def test_letters_and_schedules_that_do_not_open_hide_no_others(noria: Noria, server_url: str) -> None:
    await noria.broker.provision()
    await noria.broker.triggers.bury("poison", "waits", b"one", {}, "first")
    async with Noria.connect(server_url, namespace=noria.namespace, codec=AesGcm({"other": NEW})) as late:
        await late.broker.triggers.bury("poison", "waits", b"two", {}, "second")
        letters = await late.dead.list()
        assert [(letter.body, letter.cut) for letter in letters] == [(b"", True), (b"two", False)]
        assert letters[0].reason.startswith("first") and repr(KEY) in letters[0].reason
        with pytest.raises(NoriaError, match="not whole"):
            await late.dead.replay(letters[0].sequence)

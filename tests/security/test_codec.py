"""Values sealed at rest: nothing that a user gave is readable in any stream, and everything works as without."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest

from noria import Context, Cron, NonRetryable, Noria, Workflow, remote_step, step
from noria.broker.reading import read
from noria.codec import AesGcm
from noria.codec.sealing import Sealing
from noria.contract.envelopes import Envelope
from noria.contract.facts import FactMessage, StepEnded
from noria.errors import DefinitionError, NewerFormat, NoriaError
from noria.ports import RunKey
from tests.conftest import drop
from tests.schemas.checking import CLOUDEVENTS, problems

MARK = "s3cret"
OLD, NEW = os.urandom(32), os.urandom(16)


@step
async def work(x: Any, ctx: Context) -> Any:
    ctx.set_state(kept=f"{MARK}-state")
    ctx.request_context["who"] = f"{MARK}-context"
    await ctx.write(f"{MARK}-written")
    await ctx.emit("told", {"what": f"{MARK}-told"})
    return {"out": f"{MARK}-output", "large": MARK * x["size"]}


@step
async def ask(x: Any, ctx: Context) -> Any:
    if ctx.resume_data is None:
        ctx.suspend({"asked": f"{MARK}-payload"}, output=f"{MARK}-shown")
    return {"got": ctx.resume_data, "state": ctx.state["kept"], "context": dict(ctx.request_context)}


@step
async def broken(x: Any) -> Any:
    raise NonRetryable(f"{MARK}-error")


sealed = Workflow("sealed").then(work).then(ask).map(lambda x: [x, x]).foreach(ask.clone(id="each"), concurrency=2, placement="spread").commit()
failing = Workflow("failing").then(broken).commit()


@pytest.fixture
async def noria(server_url: str) -> AsyncIterator[Noria]:
    async with Noria.connect(server_url, namespace=f"t{os.urandom(6).hex()}", codec=AesGcm({"old": OLD})) as client:
        yield client
        await drop(client)


async def everything(noria: Noria, least: int = 6) -> bytes:
    """All that is stored in the namespace, headers too."""
    connection, subjects = noria.broker.connection, noria.broker.subjects
    streams = (subjects.runs, subjects.triggers, subjects.dead, subjects.blobs, f"KV_{subjects.records}", f"KV_{subjects.catalogue}")
    found = [m for name in streams for m in await read(connection, name, ">")]
    assert len(found) >= least
    return b"".join(m.body + repr(m.headers).encode() for m in found)


@pytest.mark.parametrize("size", [1, 60_000])
async def test_nothing_that_a_user_gave_is_readable(noria: Noria, size: int) -> None:
    heard: list[bytes] = []
    stop = await noria.broker.connection.subscribe(f"{noria.namespace}.>", lambda msg: heard.append(msg.data))
    async with noria.worker(sealed, failing):
        run = noria.create_run(sealed, "visible-id", "visible-resource")
        events = asyncio.create_task(_collect(run))
        result = await run.start({"size": size, "in": f"{MARK}-input"}, state={"s": f"{MARK}-s"}, request_context={"c": f"{MARK}-c"})
        assert result.suspended[0].payload == {"asked": f"{MARK}-payload"} and result.steps["work"].output["large"] == MARK * size
        assert (await run.resume(f"{MARK}-data", step=ask)).status == "suspended"
        result = await run.resume({"again": f"{MARK}-again"})
        assert result.status == "success" and result.result[0]["got"] == {"again": f"{MARK}-again"}
        assert result.state["kept"] == f"{MARK}-state" and result.result[0]["context"]["who"] == f"{MARK}-context"
        assert (await noria.run(failing, 1)).error.message == f"{MARK}-error"
        record = await noria.runs.get("visible-id")
        assert record is not None and record.input["in"] == f"{MARK}-input"
        seen = {e.type: e.data for e in await events}
        assert seen["told"] == {"what": f"{MARK}-told"} and seen["workflow-step-output"]["output"] == f"{MARK}-written"
        await noria.broker.triggers.bury("poison", "sealed", f"{MARK}-command".encode(), {}, "reason")
        assert (await noria.broker.triggers.dead())[0].body == f"{MARK}-command".encode()
        stored = await everything(noria)
    await stop()
    text = stored + b"".join(heard)
    for body in heard:
        found = json.loads(body) if b'"sealed":"' in body else []
        for document in found if isinstance(found, list) else [found]:
            name = "events" if "specversion" in document else "commands" if "kind" in document else "news" if "in" in document else "records"
            assert problems(f"{name}/sealed", document) == []
    assert MARK.encode() not in text and base64.b64encode(MARK.encode() * 4)[:12] not in text
    assert b"visible-id" in text and b"visible-resource" in text and b"io.noria.workflow-step-result.v1" in text


async def _collect(run: Any) -> list[Any]:
    return [event async for event in run.observe()]


async def test_keys_rotate(noria: Noria, server_url: str) -> None:
    async with noria.worker(sealed):
        run = noria.create_run(sealed, "r1")
        await run.start({"size": 1})
    async with Noria.connect(server_url, namespace=noria.namespace, codec=AesGcm({"new": NEW, "old": OLD})) as both, both.worker(sealed):
        other = both.create_run(sealed, "r1")
        await other.resume("x", step=ask)
        assert (await other.resume("y")).status == "success"
        assert (await both.create_run(sealed, "r2").start({"size": 1})).status == "suspended"
    async with Noria.connect(server_url, namespace=noria.namespace, codec=AesGcm({"new": NEW})) as late:
        record = await late.runs.get("r2")
        assert record is not None and record.status == "suspended"
        # the record of r1 was sealed anew when it ended: only its old facts need the old key
        assert (await late.runs.get("r1")).status == "success"
    with pytest.raises(NoriaError, match="'new'; this process has 'old'"):
        await noria.runs.get("r2")


async def test_who_has_no_codec_harms_nothing(noria: Noria, server_url: str) -> None:
    run = noria.create_run(sealed, "r1")
    async with Noria.connect(server_url, namespace=noria.namespace) as bare:
        await noria.broker.provision()
        await run.start_async({"size": 1})
        async with bare.worker(sealed):
            with pytest.raises(NewerFormat, match="sealed: connect with the codec"):
                await bare.runs.get("r1")
            await asyncio.sleep(0.3)
    async with noria.worker(sealed):
        assert (await run.result(timeout=20)).status == "suspended"
        async with Noria.connect(server_url, namespace=noria.namespace) as bare:
            with pytest.raises(NewerFormat, match="sealed"):
                await bare.runs.get("r1")
        assert (await run.resume("x", step=ask)).status == "suspended"


async def test_a_namespace_changes_over(noria: Noria, server_url: str) -> None:
    async with Noria.connect(server_url, namespace=noria.namespace) as bare, bare.worker(sealed):
        assert (await bare.create_run(sealed, "r1").start({"size": 1})).status == "suspended"
    async with noria.worker(sealed):
        run = noria.create_run(sealed, "r1")
        await run.resume("x", step=ask)
        assert (await run.resume("y")).status == "success"


class Eavesdropper:
    """All that is said in the namespace, and in inboxes (never beyond a worker's end: a pull of its counts as awaited then)."""

    def __init__(self, noria: Noria, inboxes: bool = False) -> None:
        self.noria, self.heard = noria, list[tuple[str, bytes]]()
        self.wanted = [f"{noria.namespace}.>", *(["_INBOX.>"] if inboxes else [])]

    async def __aenter__(self) -> Eavesdropper:
        connection = self.noria.broker.connection
        self.stops = [await connection.subscribe(subject, lambda msg: self.heard.append((msg.subject, msg.data))) for subject in self.wanted]
        await connection.client.flush()
        return self

    async def __aexit__(self, *_: object) -> None:
        for stop in self.stops:
            await stop()

    def of(self, kind: str) -> list[bytes]:
        return [body for subject, body in self.heard if subject.startswith(f"{self.noria.namespace}.{kind}.")]


@pytest.mark.parametrize("size", [1, 400_000])
async def test_step_calls_are_sealed_between_workers(noria: Noria, server_url: str, size: int) -> None:
    async with (
        Noria.connect(server_url, namespace=noria.namespace, codec=AesGcm({"old": OLD})) as other, Eavesdropper(noria, inboxes=True) as spy,
        other.worker(sealed, failing, runs=False), noria.worker(sealed, failing, steps=False),
    ):  # fmt: skip
        run = noria.create_run(sealed, "visible-id", "visible-resource")
        await run.start({"size": size, "in": f"{MARK}-input"}, state={"s": f"{MARK}-s"}, request_context={"c": f"{MARK}-c"})
        assert (await run.resume(f"{MARK}-data", step=ask)).status == "suspended"
        result = await run.resume({"again": f"{MARK}-again"})
        assert result.status == "success" and result.result[0] == {
            "got": {"again": f"{MARK}-again"}, "state": f"{MARK}-state", "context": {"c": f"{MARK}-c", "who": f"{MARK}-context"},
        }  # fmt: skip
        assert (await noria.run(failing, 1)).error.message == f"{MARK}-error"
        stored = await everything(noria)
    requests = [json.loads(body) for body in spy.of("step")]
    assert len(requests) >= 6 and all(r["step"] in ("work", "ask", "each", "broken") for r in requests if "sealed" in r)
    for request in requests:
        assert problems("calls/sealed" if "sealed" in request else "calls/parcel", request) == []
    answers = [json.loads(body) for subject, body in spy.heard if subject.startswith("_INBOX.") and body.startswith(b'{"v":1000001')]
    told = [a for a in answers if set(a) <= {"v", "status", "type", "sealed"}]
    assert {"success", "suspended", "failed", "output", "event"} <= {a.get("status", a.get("type")) for a in told}
    assert [problem for a in told for problem in problems("calls/sealed-reply", a)] == []
    assert {r["run_id"] for r in requests} >= {"visible-id"}
    text = stored + b"".join(body for _, body in spy.heard)
    assert MARK.encode() not in text and base64.b64encode(MARK.encode() * 4)[:12] not in text
    if size > 1:
        assert any("noria_blob" in r for r in requests), "the second call has the first one's output, by reference"


async def test_a_handler_without_the_codec_says_so_and_another_one_is_called(noria: Noria, server_url: str) -> None:
    flow = Workflow("doubling").then(step(lambda x: x * 2, id="double")).commit()
    async with Noria.connect(server_url, namespace=noria.namespace) as bare, bare.worker(flow, runs=False), noria.worker(flow, steps=False):
        result = await noria.run(flow, 1)
        assert result.error is not None and "handlers in a row" in result.error.message
        assert result.error.cause is not None and "sealed: connect with the codec" in result.error.cause.message


async def test_a_handler_in_another_language_is_called_in_plain_words_only_when_it_may(noria: Noria, server_url: str) -> None:
    client = await nats.connect(server_url)
    seen: list[dict[str, Any]] = []

    async def serve(msg: Any) -> None:
        seen.append(json.loads(msg.data))
        size = seen[-1]["input"]
        await client.publish(msg.reply, json.dumps({"status": "success", "output": "x" * size}).encode())

    await client.subscribe(f"{noria.namespace}.step.*.far", cb=serve)
    open_flow = Workflow("opened").then(remote_step("far", sealed=False)).commit()
    closed_flow = Workflow("closed").then(remote_step("far")).commit()
    async with noria.worker(open_flow, closed_flow):
        assert (await noria.run(open_flow, 5)).result == "xxxxx"
        assert seen[-1]["reply_as"] == "plain" and seen[-1]["input"] == 5
        run = noria.create_run(closed_flow, "waits")
        await run.start_async(5)
        result = await noria.run(open_flow, 6)
        assert result.result == "x" * 6 and {call["workflow"] for call in seen} == {"opened"}
        await run.cancel()
    await client.close()


@step
async def sized(x: Any) -> int:
    return len(x["text"])


def ticking(seconds: str) -> Workflow:
    return Workflow("ticking", schedule=Cron(f"{seconds} * * * * *", input={"text": f"{MARK}-tick"}, id="often")).then(sized).commit()


async def test_inputs_of_schedules_are_sealed(noria: Noria, server_url: str) -> None:
    async with Noria.connect(server_url, namespace=noria.namespace) as bare, bare.worker(ticking("*/2")):
        assert MARK.encode() in await everything(noria, 1), "declared without the codec"
    async with Eavesdropper(noria) as spy, noria.worker(ticking("*/2")):
        assert [problems("records/sealed-schedule", json.loads(body)) for body in spy.of("cron")] == [[]], "declared anew, sealed"
        async with asyncio.timeout(30):  # the first one may be of the open definition still
            while (await noria.runs.list("ticking", status="success")).total < 2:
                await asyncio.sleep(0.1)
        (schedule,) = await noria.schedules.list()
        assert schedule.input == {"text": f"{MARK}-tick"}
        await noria.schedules.pause("often")
        (schedule,) = await noria.schedules.list()
        assert schedule.paused and schedule.input == {"text": f"{MARK}-tick"}
        run_id = await noria.schedules.run("often")
        assert (await noria.create_run("ticking", run_id).result(timeout=10)).result == len(f"{MARK}-tick")
        assert all(b'"sealed"' in body for body in spy.of("cron"))
        async with asyncio.timeout(10):
            while MARK.encode() in await everything(noria):
                await asyncio.sleep(0.1)
    assert MARK.encode() not in b"".join(body for _, body in spy.heard)
    async with noria.worker(ticking("*/2")):
        assert (await noria.schedules.list())[0].paused, "a redeploy that changes nothing leaves it"


def test_sealed_events_are_cloudevents_still() -> None:
    sealing, run = Sealing(AesGcm({"k": OLD})), RunKey("order", "r1")
    body = Envelope("noria", "order", "r1").encode("", FactMessage([StepEnded("s", "success", 1.0, 2.0, MARK)], 1, 1, "h", "id"))
    changed = sealing.events(run, body)
    event = json.loads(changed)
    assert not list(CLOUDEVENTS.iter_errors(event)) and MARK not in str(event) and set(event["data"]) == {"noria"}
    assert sealing.open_events(run, changed) == body and sealing.open_events(run, body) == body


def test_a_value_cannot_be_moved_or_changed() -> None:
    codec = AesGcm({"k": OLD})
    text = codec.seal(b"value", b"order/r1")
    assert codec.open(text, b"order/r1") == b"value" and codec.seal(b"value", b"order/r1") != text
    for wrong, context in ((text, b"order/r2"), (text[:-1] + bytes([text[-1] ^ 1]), b"order/r1"), (text[:20], b"order/r1")):
        with pytest.raises(NoriaError, match="does not open"):
            codec.open(wrong, context)
    with pytest.raises(NoriaError, match="sealed with key 'k'; this process has 'other'"):
        AesGcm({"other": NEW}).open(text, b"order/r1")


@pytest.mark.parametrize(("make", "words"), [
    (lambda: AesGcm({}), "keys"), (lambda: AesGcm({"k": b"short"}), "'k'"), (lambda: AesGcm({"k": OLD}, "other"), "'other'; there are 'k'"),
    (lambda: AesGcm.of("k"), "base64"), (lambda: AesGcm.of("k:!!!"), "base64"),
])  # fmt: skip
def test_bad_keys_are_refused_by_name(make: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        make()


def test_keys_from_text() -> None:
    text = f"new:{base64.b64encode(NEW).decode()}, old:{base64.b64encode(OLD).decode()}"
    both = AesGcm.of(text)
    assert both.active == "new" and both.open(AesGcm({"old": OLD}).seal(b"x", b""), b"") == b"x"

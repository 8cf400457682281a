"""Step handlers that answer anything at all: the worker lives, each run says what was wrong, nobody else notices."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
from hypothesis import strategies as st
from nats.aio.client import Client
from tests.live.test_hostile import JSON, examples
from tests.schemas.checking import problems

from noria import Context, Noria, Retry, Workflow, remote_step, step
from noria.actor import elsewhere
from noria.broker.reading import read
from noria.codec import AesGcm
from noria.contract import calls
from noria.contract.results import RunResult
from noria.ports import RunKey

pytestmark = pytest.mark.timeout(240)
KNOWN = [kind for kind in calls.KINDS if kind not in ("call", "parcel")]
GOOD: list[dict[str, Any]] = [
    {"type": "heartbeat"}, {"type": "output", "data": {"status": 1}}, {"type": "event", "name": "scanned", "data": [1]},
    {"status": "success", "output": {"type": "x"}, "state": {"a": 1}, "request_context": {"b": 2}, "request_context_removed": ["c"]},
    {"status": "suspended", "payload": 1, "labels": ["ok"], "output": 2}, {"status": "bailed", "result": 3}, {"status": "aborted"},
    {"status": "failed", "error": {"type": "Odd", "message": "as told", "attributes": {"n": 1}, "cause": {"type": "Deep"}}, "retryable": False},
    {"status": "tripwire", "reason": "enough", "retry": True, "metadata": {}}, {"status": "handed-back"},
    {"noria_blob": f"call-{'0' * 32}-1", "root": "victim", "run_id": "other"},
    {"v": 1_000_001, "status": "success", "sealed": "AAAA"},
]  # fmt: skip
DEEP = b'{"status":"success","output":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
SPECIAL = [
    b"", b"null", b"[]", b'"status"', b"\xff\xfe", b'{"status":"success","output":NaN}', b'{"status":"success","output":1e999}', DEEP,
    b'{"status":"success","output":"\\ud800"}', b'{"status":"success","output":%d}' % 2**80, b'{"status":"success","status":"failed"}',
    b'{"status":"suspended","labels":%s}' % json.dumps([str(n) for n in range(1000)]).encode(), b'{"status":"success","output":"' + b"x" * 900_000,
    b'{"type":"event","name":"workflow-finish","data":{"status":"success"}}', b'{"type":"event","name":"%s"}' % (b"n" * 5000),
    b'{"type":"event","name":"a b\\r\\nNats-TTL: 1s"}', b'{"type":"output","data":' + b'{"a":' * 150 + b"1" + b"}" * 150 + b"}",
    b'{"status":"failed","error":' + b'{"cause":' * 150 + b"{}" + b"}" * 150 + b"}", b'{"status":"failed","error":{"attributes":{"__class__":1}}}',
    b'{"status":"tripwire","reason":"' + b"y" * 100_000 + b'"}', b'{"noria_blob":"../../x-1"}', b'{"noria_blob":"call-*-1"}', b'{"noria_blob":5}',
    b'{"noria_blob":"call-' + b"a" * 32 + b'-9999"}', b'{"status":"success","state":{"":null},"request_context":{"":[]}}',
]  # fmt: skip
ERRORS = [
    {"Nats-Service-Error": "no", "Nats-Service-Error-Code": code} for code in ("400", "413", "500", "503", "", "x", "\u00e4")
] + [{"Nats-Service-Error": "x" * 5000}, {"Status": "503"}, {"Nats-Service-Error-Code": "500"}]  # fmt: skip


class Said(dict[str, Any]):
    """One message of a hostile handler: body and headers."""


@st.composite
def said(draw: st.DrawFn) -> Said:
    body = draw(st.one_of(st.sampled_from(SPECIAL), st.binary(max_size=100), st.builds(lambda v: json.dumps(v).encode(), JSON), changed()))
    return Said(body=body, headers=draw(st.sampled_from([None] * 12 + ERRORS)))


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A good message: whole, cut, or with one of its fields exchanged, removed or added."""
    data = json.loads(json.dumps(draw(st.sampled_from(GOOD))))
    match draw(st.integers(0, 4)):
        case 0:
            return json.dumps(data).encode()
        case 1:
            body = json.dumps(data).encode()
            return body[: draw(st.integers(0, len(body) - 1))]
        case 2:
            data.pop(draw(st.sampled_from(sorted(data))))
        case 3:
            data[draw(st.sampled_from(["status", "type", "output", "v", "noria_blob", "extra", "state", "error"]))] = draw(JSON)
        case _:
            data[draw(st.sampled_from(sorted(data)))] = draw(JSON)
    return json.dumps(data).encode()


victim = Workflow("victim").then(remote_step("hostile", timeout=60, retry=Retry(attempts=1, delay=0.01))).commit()
honest = Workflow("honest").then(remote_step("doubles", retry=Retry(attempts=5), sealed=False)).commit()


@step
async def local(x: Any, ctx: Context) -> Any:
    await ctx.write(x)
    return x


bystander = Workflow("bystander").then(local).commit()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere, "CALL_HEARTBEAT_SECONDS", 1.0)
    monkeypatch.setattr(elsewhere, "HANDLER_DEATHS", 0)
    monkeypatch.setattr(elsewhere, "HANDLER_PATIENCE_SECONDS", 1.0)


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    made = await nats.connect(server_url)
    yield made
    await made.close()


async def serve_honestly(client: Client, namespace: str, pause: float = 0.0) -> None:
    async def reply(msg: Any) -> None:
        async def later() -> None:
            await asyncio.sleep(pause)
            await client.publish(msg.reply, json.dumps({"status": "success", "output": json.loads(msg.data)["input"] * 2}).encode())

        tasks.append(asyncio.create_task(later()))

    tasks: list[asyncio.Task[None]] = []
    await client.subscribe(f"{namespace}.step.honest.doubles", cb=reply)
    await client.flush()


def deciding(script: list[Said]) -> str:
    """How a run must end by what the schemas say of the messages; "any" where they leave it open."""
    for message in script:
        headers = message["headers"] or {}
        if headers:
            return "any"
        try:
            data = json.loads(message["body"])
        except (ValueError, RecursionError):
            return "refused"
        fits = [kind for kind in KNOWN if problems(f"calls/{kind}", data) == []] if isinstance(data, dict) else []
        if not fits:
            return "refused, or taken leniently"
        if fits[0] not in ("heartbeat", "output", "event"):
            return fits[0]
        if fits[0] == "event" and str(data["name"]).startswith("workflow-"):
            return "refused"
    return "silent"


def check(result: RunResult, expected: str, lines: list[str]) -> None:
    """It ended as it had to, and says why."""
    ended = {"success": "success", "suspended": "suspended", "bailed": "success", "tripwire": "tripwire", "aborted": "canceled"}
    if expected in ended and result.status != "failed":
        assert result.status == ended[expected], (result, expected)
    if expected in ("refused", "failed", "silent", "handed-back"):
        assert result.status == "failed", (result, expected)
    if result.status == "failed":
        assert result.error is not None and result.error.type and result.steps["hostile"].error == result.error
        assert result.error.message or expected not in ("refused", "silent", "handed-back")  # else the handler gave none
        assert any(f"run {result.run_id} failed" in line for line in lines), "the log says so"
    if result.status == "tripwire":
        assert result.tripwire is not None and result.tripwire.step == "hostile"


@pytest.fixture(params=["plain", "sealed"])
async def either(request: pytest.FixtureRequest, noria: Noria, server_url: str) -> AsyncIterator[Noria]:
    """A client without a codec, and one with."""
    if request.param == "plain":
        yield noria
    else:
        async with Noria.connect(server_url, namespace=noria.namespace, codec=AesGcm({"k": bytes(32)})) as sealing:
            yield sealing


async def test_whatever_a_handler_says(either: Noria, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    noria = either
    scripts = [[m] for m in examples(said(), 150)] + examples(st.lists(said(), min_size=2, max_size=4), 60)
    scripts += [[Said(body=body, headers=None)] for body in SPECIAL]
    heard: list[Any] = []

    async def hostile(msg: Any) -> None:
        heard.append(msg)
        for message in scripts[int(json.loads(msg.data)["run_id"][1:])]:
            await client.publish(msg.reply, message["body"], headers=message["headers"])

    for more in ("", ".parcel"):
        await client.subscribe(f"{noria.namespace}.step.victim.hostile{more}", cb=hostile)
    await serve_honestly(client, noria.namespace)
    caplog.set_level(logging.WARNING, "noria")
    async with noria.worker(victim, honest, bystander, lease=5, concurrency=300):
        runs = [noria.create_run(victim, f"v{n}") for n in range(len(scripts))]
        work = [asyncio.create_task(run.start(n)) for n, run in enumerate(runs)]
        for n in range(10):
            assert (await asyncio.wait_for(noria.run(honest, n), 60)).result == n * 2
            assert (await asyncio.wait_for(noria.run(bystander, n), 60)).result == n
        results = await asyncio.wait_for(asyncio.gather(*work), 120)
        lines = [r.getMessage() for r in caplog.records]
        for result, script in zip(results, scripts, strict=True):
            check(result, deciding(script), lines)
        for msg in heard:  # late and twice
            await client.publish(msg.reply, b'{"status":"success","output":"late"}')
            await client.publish(msg.reply, b"\x00")
        await client.flush()
        assert (await asyncio.wait_for(noria.run(honest, 21), 60)).result == 42
        assert [(await run.get()).status for run in runs[:40]] == [r.status for r in results[:40]]  # type: ignore[union-attr]
    assert not [r for r in caplog.records if r.exc_info], "nothing broke inside"


CALL = {
    "v": 1, "call": "c", "root": "bystander", "run_id": "r", "workflow": "bystander", "step": "local", "path": [], "input": 1, "attempt": 0,
    "state": {}, "request_context": {}, "results": {}, "heartbeat": 2.0, "progress": "hostile.progress", "cancel": "hostile.cancel", "timeout": 5,
    "index": None, "reply_as": "plain",
}  # fmt: skip
SMUGGLED = "a 1\r\nx\r\nPUB smuggled 1\r\nx\r\nPUB b"
PARCEL = {"noria_blob": f"call-{'0' * 32}-1", "root": "bystander", "run_id": "r"}
CLOSED = {"v": 1_000_001, "call": "c", "root": "bystander", "run_id": "r", "sealed": "AAAA"}


@st.composite
def asked(draw: st.DrawFn) -> bytes:
    """A call with some of its fields exchanged, or anything."""
    if draw(st.booleans()):
        return draw(st.one_of(st.sampled_from(SPECIAL), st.binary(max_size=100)))
    data = dict(draw(st.sampled_from([CALL, CALL, PARCEL, CLOSED])))
    for field in draw(st.lists(st.sampled_from(sorted(data)), max_size=3)):
        data[field] = draw(st.one_of(JSON, st.sampled_from(["*", ">", "", "a.b", " ", -1, 0, 1e300, "parcel", "sealed", "x" * 5000, SMUGGLED])))
    return json.dumps(data).encode()


async def test_whatever_a_handler_is_asked(either: Noria, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Each request is answered: by a reply, or by an error that says what is wrong with it."""
    bodies = examples(asked(), 200)
    bodies += [json.dumps({**CALL, field: SMUGGLED}).encode() for field in CALL]
    subject = f"{either.namespace}.step.bystander.local"
    smuggled: list[Any] = []

    async def caught(msg: Any) -> None:
        smuggled.append(msg)

    await client.subscribe("smuggled", cb=caught)
    caplog.set_level(logging.WARNING, "noria")
    async with either.worker(bystander):
        answers = await asyncio.gather(*(client.request(subject + (".parcel" if n % 2 else ""), b, timeout=60) for n, b in enumerate(bodies)))
        for body, answer in zip(bodies, answers, strict=True):
            headers = answer.headers or {}
            if "Nats-Service-Error" in headers:
                assert headers["Nats-Service-Error"] and headers["Nats-Service-Error-Code"] in ("400", "503"), (body, headers)
            else:
                assert calls.decode(answer.data).status in ("success", "failed")  # type: ignore[union-attr]
        assert sum("Nats-Service-Error" in (a.headers or {}) for a in answers) > 50
        assert (await asyncio.wait_for(either.run(bystander, 7), 60)).result == 7
    assert not smuggled and not [r for r in caplog.records if r.exc_info], "nothing broke inside"


async def test_a_handler_cannot_answer_for_others(noria: Noria, client: Client) -> None:
    """It knows the address of its own call, and tries those beside it."""

    async def hostile(msg: Any) -> None:
        prefix, _, token = msg.reply.rpartition(".")
        near = [str(n) for n in range(300)]
        if token.isdigit():
            near += [str(int(token) + n) for n in range(-300, 300)]
        for other in [*near, "*", ">", ""]:
            if other:
                await client.publish(f"{prefix}.{other}", b'{"status":"success","output":"forged"}')
        await client.publish(msg.reply, b'{"status":"success","output":"mine"}')

    await client.subscribe(f"{noria.namespace}.step.victim.hostile", cb=hostile)
    await serve_honestly(client, noria.namespace, pause=0.5)
    async with noria.worker(victim, honest):
        others = [asyncio.create_task(noria.run(honest, n)) for n in range(20)]
        mine = [(await noria.run(victim, n)).result for n in range(3)]
        assert [(await other).result for other in others] == [n * 2 for n in range(20)] and mine == ["mine"] * 3


async def test_a_reply_cannot_take_values_of_the_run(noria: Noria, client: Client) -> None:
    """A slip that names one of the run's own values is refused, and the value stays."""
    subjects = noria.broker.subjects
    flow = Workflow("victim").then(local).then(remote_step("hostile")).commit()

    async def hostile(msg: Any) -> None:
        found = await read(noria.broker.connection, subjects.blobs, subjects.blob(RunKey("victim", "v")))
        name = found[0].subject.split(".")[4]
        await client.publish(msg.reply, json.dumps({"noria_blob": name}).encode())

    await client.subscribe(f"{noria.namespace}.step.victim.hostile", cb=hostile)
    async with noria.worker(flow):
        result = await noria.run(flow, "x" * 300_000, run_id="v")
        assert result.error is not None and "not the slip" in result.error.message
        record = await noria.runs.get("v")
        assert record is not None and record.steps["local"].output == "x" * 300_000


async def test_a_handler_that_never_stops_talking(noria: Noria, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere, "CALL_BACKLOG", 5)
    flow = Workflow("victim").then(remote_step("hostile")).commit()
    cancelled = asyncio.Event()

    async def hostile(msg: Any) -> None:
        for _ in range(20):
            for _ in range(500):
                await client.publish(msg.reply, b'{"type":"output","data":1}')
            await client.flush()

    async def uncall(msg: Any) -> None:
        cancelled.set()

    await client.subscribe(f"{noria.namespace}.step.victim.hostile", cb=hostile)
    await client.subscribe(f"{noria.namespace}.uncall.>", cb=uncall)
    async with noria.worker(flow):
        result = await asyncio.wait_for(noria.run(flow, 1), 60)
        assert result.error is not None and "says more than can be handed on" in result.error.message
        await asyncio.wait_for(cancelled.wait(), 10)

"""What each of the five roles may do, and what it is refused, on a server with the exported configuration."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client

from noria import Context, Noria, Workflow, step
from noria.broker.permissions import STORES, stream
from noria.contract.channels import CHANNELS, Role
from noria.errors import BrokerUnavailable, NotPermitted
from noria.ports import ActorKey, RunKey
from tests.security.conftest import NAMESPACE, SUBJECTS, Guarded


@step
async def double(x: int) -> int:
    return 2 * x


@step
async def ask(x: int, ctx: Context) -> int:
    if ctx.resume_data is None:
        ctx.suspend({"x": x})
    return int(ctx.resume_data)


flow = Workflow("order").then(double).commit()
asking = Workflow("asking").then(ask).commit()
NAMES = {s: stream(SUBJECTS, s) for s in STORES}


@pytest.fixture
async def worker(guarded: Guarded) -> AsyncIterator[Noria]:
    """A worker at work, on streams that an admin made."""
    async with guarded.connect("admin") as admin:
        await admin.infra.apply()
    async with guarded.connect("worker") as noria, noria.worker(flow, asking):
        yield noria


class Probe:
    """A plain connection of a role; says what the server refused."""

    def __init__(self, guarded: Guarded, role: Role) -> None:
        self.guarded, self.role, self.refused = guarded, role, list[str]()
        self.js = guarded.options(role).get("js_prefix", "$JS.API")

    async def __aenter__(self) -> Probe:
        async def failed(error: Exception) -> None:
            self.refused.append(str(error))

        options = {k: v for k, v in self.guarded.options(self.role).items() if k != "js_prefix"}
        self.client: Client = await nats.connect(self.guarded.url, error_cb=failed, allow_reconnect=False, **options)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def _settle(self) -> None:
        for _ in range(2):  # a flush may overtake what is still buffered (nats-facts.md, later findings)
            await self.client.flush()

    async def may_publish(self, subject: str, body: bytes = b"{}", reply: str = "") -> bool:
        self.refused.clear()
        await self.client.publish(subject.replace("$JS.API", self.js), body, reply=reply)
        await self._settle()
        return not self.refused

    async def may_subscribe(self, subject: str) -> bool:
        self.refused.clear()
        subscription = await self.client.subscribe(subject)
        await self._settle()
        if not self.refused:
            await subscription.unsubscribe()
        return not self.refused

    async def ask(self, subject: str, body: bytes = b"") -> dict[str, Any]:
        answer = await self.client.request(subject.replace("$JS.API", self.js), body, timeout=3)
        return {"error": None, **json.loads(answer.data)} if answer.data.startswith(b"{") else {"error": None, "data": answer.data}


RUN = f"{NAMESPACE}.run.order.r1._"
WRITES = [
    RUN, f"{NAMESPACE}.in.order.r1._", f"{NAMESPACE}.live.order.r1._", f"{NAMESPACE}.timer.order.r1._.nap", f"{NAMESPACE}.cron.order.daily",
    f"{NAMESPACE}.dead.trigger.order", f"{NAMESPACE}.blob.order.r1.x.0", f"{NAMESPACE}.rest.order.r1.failed", f"{NAMESPACE}.nudge.order.r1",
    f"{NAMESPACE}.step.order.double", f"$KV.{NAMESPACE}-runs.order.r1", f"$KV.{NAMESPACE}-workflows.order", "$JS.ACK.SHOP_RUNS.w-order.1.1.1.1.1",
    "elsewhere.x",
]  # fmt: skip
MANAGES = [f"$JS.API.STREAM.{verb}.{name}" for name in NAMES.values() for verb in ("CREATE", "UPDATE", "DELETE", "PURGE", "MSG.DELETE")]
CONSUMES = [f"$JS.API.CONSUMER.{verb}" for name in NAMES.values() for verb in (
    f"CREATE.{name}", f"CREATE.{name}.w-order.>", f"DURABLE.CREATE.{name}.mine", f"DELETE.{name}.w-order", f"MSG.NEXT.{name}.w-order",
)]  # fmt: skip
LOOKS = [f"$JS.API.{verb}" for s in ("runs", "blobs", "records", "catalogue") for verb in (
    f"STREAM.INFO.{NAMES[s]}", f"STREAM.MSG.GET.{NAMES[s]}", f"DIRECT.GET.{NAMES[s]}", f"DIRECT.GET.{NAMES[s]}.{NAMESPACE}.x",
    f"CONSUMER.INFO.{NAMES[s]}.w-order",
)]  # fmt: skip
HEARS = [f"{NAMESPACE}.run.>", f"{NAMESPACE}.live.order.>", f"{NAMESPACE}.rest.*.*.failed"]
SECRET = [
    f"{NAMESPACE}.in.>", f"{NAMESPACE}.trigger.>", f"{NAMESPACE}.blob.>", f"{NAMESPACE}.step.>", f"{NAMESPACE}.>", ">", "$KV.>", "$JS.>",
    "_INBOX.>", "_INBOX_worker.>", "_INBOX_admin.>", "$SYS.>",
]  # fmt: skip


async def test_an_observer_reads_and_writes_nothing(worker: Noria, guarded: Guarded) -> None:
    await worker.run(flow, 2, run_id="seen-by-observer")
    async with Probe(guarded, "observer") as probe:
        for subject in LOOKS:
            assert await probe.may_publish(subject), subject
        for subject in HEARS:
            assert await probe.may_subscribe(subject), subject
        for subject in [*WRITES, *MANAGES, *CONSUMES, f"{NAMESPACE}.trigger.order", f"{NAMESPACE}.api.start"]:
            assert not await probe.may_publish(subject), subject
        for subject in SECRET:
            assert not await probe.may_subscribe(subject), subject
        info = await probe.ask(f"$JS.API.STREAM.INFO.{NAMES['runs']}")
        assert info["error"] is None and info["config"]["name"] == "SHOP_RUNS"
        record = await probe.client.request(f"{probe.js}.DIRECT.GET.{NAMES['records']}.$KV.shop-runs.order.seen-by-observer", timeout=3)
        assert record.data.startswith(b'{"v"')


async def test_a_publisher_publishes_triggers_and_nothing_else(worker: Noria, guarded: Guarded) -> None:
    async with Probe(guarded, "publisher") as probe:
        event = {"specversion": "1.0", "id": "e1", "source": "/s", "type": "t", "data": 4, "runid": "by-publisher"}
        ack = await probe.ask(f"{NAMESPACE}.trigger.order", json.dumps(event).encode())
        assert ack["error"] is None and ack["stream"] == "SHOP_TRIGGERS"
        for subject in [*WRITES, *MANAGES, *CONSUMES, *LOOKS, "$JS.API.INFO", f"{NAMESPACE}.api.list", f"$JS.API.STREAM.MSG.GET.{NAMES['triggers']}"]:
            assert not await probe.may_publish(subject), subject
        for subject in [*SECRET, *HEARS]:
            assert not await probe.may_subscribe(subject), subject
    assert (await worker.create_run(flow, "by-publisher").result(timeout=10)).result == 8


async def test_an_operator_asks_the_control_api_only(worker: Noria, guarded: Guarded) -> None:
    async def answer(msg: Any) -> None:
        connection = worker.broker.connection
        connection.publish(msg.reply, b'{"answered": true}')

    stop = await worker.broker.connection.subscribe(f"{NAMESPACE}.api.probe", lambda m: asyncio.ensure_future(answer(m)) and None)
    async with Probe(guarded, "operator") as probe:
        assert (await probe.ask(f"{NAMESPACE}.api.probe"))["answered"]
        with pytest.raises(nats.errors.NoRespondersError):
            await probe.ask(f"{NAMESPACE}.api.nothing")
        for subject in [*WRITES, *MANAGES, *CONSUMES, *LOOKS, f"{NAMESPACE}.trigger.order", "$JS.API.INFO"]:
            assert not await probe.may_publish(subject), subject
        for subject in [*SECRET, *HEARS, f"{NAMESPACE}.api.>"]:
            assert not await probe.may_subscribe(subject), subject
    await stop()


async def test_an_operator_operates_by_the_api(worker: Noria, guarded: Guarded) -> None:
    async with guarded.connect("operator", via="api") as operator:
        run = operator.create_run(asking)
        assert [e.type async for e in run.stream(1)][-1] == "workflow-finish"
        assert (await run.resume(5)).result == 5 and [e.type async for e in run.observe()][-1] == "workflow-finish"
        assert (await operator.run(flow, 3)).result == 6 and (await operator.runs.list()).total >= 2
        assert {w["id"] for w in await operator.workflows.list()} >= {flow.id, asking.id}
        await operator.runs.delete(run.id, asking)
        assert await worker.runs.get(run.id) is None


async def test_a_worker_works_but_does_not_manage(worker: Noria, guarded: Guarded) -> None:
    assert (await worker.run(flow, 3)).result == 6
    run = worker.create_run(asking)
    assert (await run.start(1)).status == "suspended" and (await run.resume(5)).result == 5
    assert (await worker.runs.list()).total >= 2 and [e.type async for e in run.observe()][-1] == "workflow-finish"
    await worker.runs.delete(run.id, asking)
    async with Probe(guarded, "worker") as probe:
        for subject in [c for c in CONSUMES if "DURABLE" not in c]:
            assert await probe.may_publish(subject.replace(".w-order", ".w-nothing")), subject
        for subject in [m for m in MANAGES if "PURGE" not in m]:
            assert not await probe.may_publish(subject), subject
        for subject in (f"$JS.API.STREAM.PURGE.{NAMES['records']}", "elsewhere.x", "_INBOX.x", "$SYS.REQ.SERVER.PING", "$JS.API.STREAM.CREATE.MINE"):
            assert not await probe.may_publish(subject), subject
        for subject in ("_INBOX_observer.>", "_INBOX_admin.>", "_INBOX.>", "$KV.>", f"{NAMESPACE}.in.>", f"{NAMESPACE}.run.>", ">", "$SYS.>"):
            assert not await probe.may_subscribe(subject), subject


async def test_an_admin_manages_the_namespace_and_no_other(worker: Noria, guarded: Guarded) -> None:
    async with guarded.connect("admin") as admin:
        assert await admin.infra.plan() == []
        assert all(ok for name, ok, _ in await admin.doctor() if not name.startswith("workflow"))
        assert (await admin.run("order", 5)).result == 10
    async with Probe(guarded, "admin") as probe:
        for subject in [s for s in [*MANAGES, *LOOKS] if "DELETE" not in s and "PURGE" not in s and "UPDATE" not in s]:
            assert await probe.may_publish(subject), subject
        for subject in HEARS:
            assert await probe.may_subscribe(subject), subject
        for subject in ("elsewhere.x", "$SYS.REQ.SERVER.PING", "other.in.order.r1._", "$KV.others.x"):
            assert not await probe.may_publish(subject), subject
        for subject in ("_INBOX_observer.>", "_INBOX_worker.>", ">", "$SYS.>", "other.>"):
            assert not await probe.may_subscribe(subject), subject


@pytest.mark.parametrize("role", ["observer", "publisher", "operator"])
async def test_no_answer_becomes_a_fact(worker: Noria, guarded: Guarded, role: Role) -> None:
    """NATS does not check reply subjects: in one account an answer to a reader would be stored wherever he says."""
    connection = worker.broker.connection
    stop = await connection.subscribe(f"{NAMESPACE}.api.echo", lambda m: connection.publish(m.reply, b"forged"))
    targets = [f"{NAMESPACE}.run.forged.r1._", f"{NAMESPACE}.in.forged.r1._", f"{NAMESPACE}.trigger.forged", f"{NAMESPACE}.dead.x.forged"]
    asked = {
        "observer": [(s, b'{"seq":1}') for s in LOOKS], "publisher": [(f"{NAMESPACE}.trigger.order", b"{}")],
        "operator": [(f"{NAMESPACE}.api.echo", b"{}")],
    }  # fmt: skip
    async with Probe(guarded, role) as probe:
        for subject, body in asked[role]:
            for target in targets:
                assert await probe.may_publish(subject, body, reply=target)
        await asyncio.sleep(0.3)
    await stop()
    async with Probe(guarded, "admin") as admin:
        for store in ("runs", "triggers", "dead"):
            info = await admin.ask(f"$JS.API.STREAM.INFO.{NAMES[store]}", b'{"subjects_filter":">"}')
            assert not [s for s in info["state"].get("subjects") or {} if "forged" in s]


async def test_noria_itself_works_as_an_observer(worker: Noria, guarded: Guarded) -> None:
    run = worker.create_run(asking, "watched")
    async with guarded.connect("observer") as observer:
        seen: list[str] = []

        async def watch() -> None:
            async for event in observer.create_run("asking", "watched").observe():
                seen.append(event.type)

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0.1)
        await run.start(1)
        await run.resume(7)
        await asyncio.wait_for(watching, 10)
        assert seen == [e.type async for e in run.observe()] and seen[-1] == "workflow-finish"
        record = await observer.runs.get("watched")
        assert record is not None and record.result == 7
        page, own = await observer.runs.list("asking"), await worker.runs.list("asking")
        assert page == own and page.total >= 1
        assert [w["id"] for w in await observer.workflows.list()] == ["asking", "order"]
        began = time.monotonic()
        for refused in (
            observer.run("order", 1), observer.create_run("asking", "watched-2").start_async(1), observer.runs.delete("watched", "asking"),
            observer.broker.log.append(ActorKey("order", "r1"), b"{}", 0), observer.broker.commands.send(ActorKey("order", "r1"), b"{}"),
        ):  # fmt: skip
            with pytest.raises(NotPermitted, match="may not publish to"):
                await refused
        assert time.monotonic() - began < 3  # refused, not timed out


async def test_who_connects_wrongly_is_told_so_at_once(guarded: Guarded) -> None:
    good, began = guarded.options("worker"), time.monotonic()
    with pytest.raises(NotPermitted, match="may not subscribe to _inbox"):
        async with Noria.connect(guarded.url, namespace=NAMESPACE, **{k: v for k, v in good.items() if k != "inbox_prefix"}):
            pass
    for wrong in ({"password": "guess"}, {"user": "nobody"}, {"user": None, "password": None}):
        with pytest.raises(BrokerUnavailable, match="(?i)authorization"):
            async with Noria.connect(guarded.url, namespace=NAMESPACE, **{**good, **wrong}):
                pass
    with pytest.raises(BrokerUnavailable, match="(?i)certificate"):
        async with Noria.connect(guarded.url, namespace=NAMESPACE, **{k: v for k, v in good.items() if k != "tls"}):
            pass
    assert time.monotonic() - began < 10


def test_every_subject_of_the_namespace_is_in_the_table_once() -> None:
    run, actor = RunKey("order", "r1"), ActorKey("order", "r1", "ship")
    s = SUBJECTS
    made = [
        *(s.of(kind, actor) for kind in ("in", "run", "live", "timer")), s.worker("order"), s.trigger("order"), s.dead_letter("x", "order"),
        s.rest(run, "failed"), s.nudge(*run), s.record(run), s.blob(run, "x.0"), s.cron("order", "nightly"), s.past("order", "nightly"),
        s.api("start"), s.step("order", "charge"), s.cancel("order", "charge", "c1"),
    ]  # fmt: skip
    for subject in made:
        assert len([c for c in CHANNELS if subject.startswith(c.filter(s).removesuffix(">"))]) == 1, subject


async def test_an_operator_ends_runs_by_the_api_and_is_refused_without(worker: Noria, guarded: Guarded) -> None:
    async with guarded.connect("operator", via="api") as operator:
        parked = operator.create_run("asking")
        assert (await parked.start(1)).status == "suspended"
        await parked.cancel()
        record = await operator.runs.get(parked.id)
        assert record is not None and record.status == "canceled"
    async with guarded.connect("operator") as direct:
        with pytest.raises(NotPermitted, match="may not (publish|subscribe) to"):
            await direct.run("order", 1)


async def test_an_operator_uses_the_command_line(worker: Noria, guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    await worker.create_run(asking, "for-the-cli").start(1)
    for name, value in {
        "NATS_URL": guarded.url, "NATS_USER": "operator", "NATS_PASSWORD": "secret-of-operator", "NATS_CA": guarded.ca,
        "NATS_INBOX_PREFIX": "_INBOX_operator", "NORIA_VIA": "api",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    async def noria_cli(*words: str) -> tuple[int | None, str]:
        command = [sys.executable, "-c", "from noria.cli.main import main; main()", *words, "--namespace", NAMESPACE, "--json"]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        out, _ = await asyncio.wait_for(process.communicate(), 30)
        return process.returncode, out.decode()

    code, out = await noria_cli("runs", "show", "for-the-cli")
    assert code in (0, 4) and '"suspended"' in out, out
    code, out = await noria_cli("runs", "resume", "for-the-cli", "--data", "5")
    assert code == 0 and '"success"' in out, out

"""The control API as a NATS micro service, and the client that uses nothing else."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import nats
import pytest
from pydantic import BaseModel
from tests.chaos.proxy import Proxy

from noria import (
    AmbiguousResume,
    Context,
    Cron,
    InvalidInput,
    Noria,
    NoriaError,
    NoWorker,
    RunAlreadyStarted,
    RunNotActive,
    RunNotFound,
    RunNotSuspended,
    RunStillActive,
    StepNotFound,
    Workflow,
    WorkflowNotFound,
    step,
)
from noria.client import remote, remote_run
from noria.clock import monotonic
from noria.contract import control


class Ask(BaseModel):
    n: int


class Receipt(BaseModel):
    total: int


@step
async def double(x: Ask) -> Receipt:
    return Receipt(total=x.n * 2)


@step
async def confirm(x: Any, ctx: Context) -> Any:
    return ctx.resume_data if ctx.resume_data is not None else ctx.suspend({"need": x}, label="ok")


@step
async def fails(x: Any) -> None:
    raise ValueError("no")


@step
async def forever(x: Any) -> None:
    await asyncio.sleep(60)


doubles = Workflow("doubles", input=Ask, output=Receipt).then(double).commit()
confirms = Workflow("confirms").then(confirm).commit()
failing = Workflow("failing").then(fails).commit()
endless = Workflow("endless", schedule=Cron("0 0 29 2 *", id="leap")).then(forever).commit()
ALL = (doubles, confirms, failing, endless)


@pytest.fixture
async def api(noria: Noria, server_url: str) -> AsyncIterator[Noria]:
    """A client that reaches the namespace by the control API only."""
    async with noria.worker(*ALL, grace=0), Noria.connect(server_url, namespace=noria.namespace, via="api") as client:
        yield client


async def ask(url: str, namespace: str, verb: str, body: str, timeout: float = 5) -> Any:
    client = await nats.connect(url)
    try:
        return await client.request(f"{namespace}.api.{verb}", body.encode(), timeout=timeout)
    finally:
        await client.close()


async def test_plain_requests(noria: Noria, server_url: str) -> None:
    """What `nats req` does."""
    async with noria.worker(*ALL, grace=0):

        async def req(verb: str, body: str = "") -> Any:
            return json.loads((await ask(server_url, noria.namespace, verb, body)).data)

        begun = await req("start", '{"workflow": "doubles", "input": {"n": 2}, "run_id": "r1"}')
        assert (begun["run_id"], begun["workflow_id"]) == ("r1", "doubles") and begun["sequence"] > 0
        done = await req("start", '{"workflow": "doubles", "input": {"n": 3}, "wait": 10}')
        assert (done["status"], done["result"]) == ("success", {"total": 6})
        assert (await req("get", '{"run_id": "r1"}'))["run_id"] == "r1"
        assert (await req("list", '{"workflow": "doubles"}'))["total"] == 2
        assert {w["id"] for w in await req("workflows")} == {w.id for w in ALL}
        waiting = await req("start", '{"workflow": "confirms", "input": 1, "run_id": "c", "wait": 10}')
        assert waiting["status"] == "suspended" and waiting["suspended"][0]["payload"] == {"need": 1}
        assert (await req("resume", '{"run_id": "c", "data": {"yes": 1}, "wait": 10}'))["result"] == {"yes": 1}
        assert await req("delete", '{"run_id": "c"}') == {"run_id": "c"}
        await req("start", '{"workflow": "endless", "run_id": "e"}')
        assert await req("cancel", '{"run_id": "e"}') == {"run_id": "e", "workflow_id": "endless", "status": "canceled"}
        assert [s["id"] for s in await req("schedules")] == ["leap"] and await req("dead") == []


async def test_refusals_say_what_is_wrong(noria: Noria, server_url: str) -> None:
    async with noria.worker(*ALL, grace=0):
        for verb, body, code, kind, words in (
            ("start", '{"workflow": "doubles", "input": {"m": 1}}', "400", "InvalidInput", "n"),
            ("start", '{"workflow": "doubles", "inputt": {}}', "400", "InvalidInput", "inputt"),
            ("start", "{", "400", "InvalidInput", "body"),
            ("start", '{"workflow": "nope"}', "404", "WorkflowNotFound", "doubles"),
            ("get", '{"run_id": "nope"}', "404", "RunNotFound", "nope"),
            ("resume", '{"run_id": "nope", "workflow": "confirms"}', "404", "RunNotFound", "nope"),
            ("delete", '{"run_id": "nope"}', "404", "RunNotFound", "nope"),
            ("schedules", '{"action": "pause", "id": "x"}', "400", "InvalidInput", "leap"),
            ("start", '{"workflow": "endless", "wait": 0.2}', "504", "TimeoutError", ""),
        ):
            msg = await ask(server_url, noria.namespace, verb, body)
            said = json.loads(msg.data)["error"]
            assert (msg.headers["Nats-Service-Error-Code"], said["type"]) == (code, kind), (verb, body, said)
            assert words in said["message"] and words in msg.headers["Nats-Service-Error"], said
        assert (await noria.runs.list(status="running")).total <= 1


async def test_it_is_a_micro_service(noria: Noria, server_url: str) -> None:
    async with Noria.connect(server_url, namespace=noria.namespace) as second, noria.worker(*ALL), second.worker(*ALL):
        for n in range(40):
            await ask(server_url, noria.namespace, "start", json.dumps({"workflow": "doubles", "input": {"n": n}}))
        await ask(server_url, noria.namespace, "get", '{"run_id": "nope"}')
        client = await nats.connect(server_url)
        box = await client.subscribe(inbox := client.new_inbox())
        await client.publish("$SRV.INFO.noria", reply=inbox)
        infos = [json.loads((await box.next_msg(2)).data) for _ in range(2)]
        own = [i for i in infos if i["metadata"]["namespace"] == noria.namespace]
        assert len(own) == 2
        endpoints = {e["name"]: e for e in own[0]["endpoints"]}
        assert set(endpoints) == set(control.VERBS)
        assert endpoints["start"]["subject"] == f"{noria.namespace}.api.start"
        assert "workflow" in json.loads(endpoints["start"]["metadata"]["request"])["properties"]
        await client.publish("$SRV.STATS.noria", reply=inbox)
        stats = [json.loads((await box.next_msg(2)).data) for _ in range(2)]
        started = [next(e["num_requests"] for e in s["endpoints"] if e["name"] == "start") for s in stats]
        errors = [next(e["num_errors"] for e in s["endpoints"] if e["name"] == "get") for s in stats]
        await client.close()
    assert sum(started) == 40 and min(started) > 0 and sum(errors) == 1


async def test_a_long_wait_does_not_block_an_endpoint(noria: Noria, server_url: str) -> None:
    async with noria.worker(*ALL, grace=0):
        waits = [asyncio.create_task(ask(server_url, noria.namespace, "start", '{"workflow":"endless","wait":3}')) for _ in range(5)]
        await asyncio.sleep(0.3)
        began = monotonic()
        msg = await ask(server_url, noria.namespace, "start", '{"workflow":"doubles","input":{"n":1},"wait":5}')
        assert json.loads(msg.data)["status"] == "success" and monotonic() - began < 2
        await asyncio.gather(*waits)


async def test_every_verb_by_the_api(api: Noria, noria: Noria) -> None:
    result = await api.run(doubles, Ask(n=4), run_id="d")
    assert result.status == "success" and result.unwrap() == Receipt(total=8) and result.steps["double"].started_at is not None
    record = await api.runs.get("d", doubles)
    assert record is not None and record.unwrap() == Receipt(total=8) and record == await noria.runs.get("d", doubles)
    assert await api.runs.get("nope") is None
    failed = await api.run("failing", 1)
    assert failed.error is not None and (failed.error.type, failed.error.message) == ("ValueError", "no")
    page, direct = await api.runs.list(), await noria.runs.list()
    assert page == direct and page.total == 2
    assert (await api.workflows.get("doubles")) == (await noria.workflows.get("doubles")) and await api.workflows.get("x") is None
    assert [w["id"] for w in await api.workflows.list()] == sorted(w.id for w in ALL)
    run = api.create_run(confirms, "c")
    assert (await run.start("x")).suspended[0].labels == ("ok",)
    assert (await run.resume({"a": 1}, label="ok")).result == {"a": 1}
    assert (await run.result()).status == "success" and (await run.get() or result).status == "success"
    await api.runs.delete("c")
    assert await noria.runs.get("c") is None
    slow = api.create_run(endless, "slow")
    assert await slow.start_async() == "slow"
    await slow.cancel()
    assert (await noria.runs.get("slow") or result).status == "canceled"
    (leap,) = await api.schedules.list()
    assert leap == (await noria.schedules.list())[0]
    await api.schedules.pause("leap")
    assert (await noria.schedules.list())[0].paused
    await api.schedules.resume("leap", endless)
    (leaps,) = {await api.schedules.run("leap", request_id="once") for _ in range(2)}
    await api.create_run(endless, leaps).cancel()
    assert await api.dead.list() == [] and (await api.doctor())[0][1]


async def test_the_same_exceptions(api: Noria) -> None:
    with pytest.raises(InvalidInput, match="doubles") as caught:
        await api.run("doubles", {"n": "x"})
    assert [(e["type"], e["loc"], e["input"]) for e in caught.value.errors()] == [("int_parsing", ("n",), "x")]
    assert isinstance(caught.value, ValueError)
    with pytest.raises(WorkflowNotFound):
        await api.run("nope")
    run = api.create_run(confirms, "twice")
    await run.start(1)
    with pytest.raises(RunAlreadyStarted, match="twice"):
        await run.start(1)
    with pytest.raises(RunStillActive):
        await api.runs.delete("twice")
    await run.resume(1)
    with pytest.raises(RunNotSuspended):
        await run.resume(1)
    with pytest.raises(RunNotFound):
        await api.create_run(confirms, "none").cancel()
    with pytest.raises(TimeoutError):
        await api.create_run(endless).start(timeout=0.5)
    with pytest.raises(NoriaError, match="via"):
        api.worker(doubles)
    assert issubclass(AmbiguousResume, NoriaError)
    with pytest.raises(InvalidInput, match="via"):
        Noria.connect(via="http")


async def test_events_by_the_api(api: Noria, noria: Noria) -> None:
    run = api.create_run(confirms, "s")
    stream = run.stream({"q": 1})
    seen = [e async for e in stream]
    assert seen == [e async for e in noria.create_run(confirms, "s").observe(close_on_suspend=True)] and len(seen) >= 4
    assert (await stream.result()).status == "suspended"
    more = [e.type async for e in run.resume_stream({"ok": True})]
    assert more == ["workflow-step-start", "workflow-step-result", "workflow-finish"]
    assert [e async for e in run.observe()] == [e async for e in noria.create_run(confirms, "s").observe()]


async def test_time_travel_fork_and_restart_by_the_api(api: Noria, noria: Noria) -> None:
    run = api.create_run(doubles, "t")
    await run.start(Ask(n=1))
    travelled = await run.time_travel(double, input={"n": 5})
    assert travelled.unwrap() == Receipt(total=10)
    types = [e.type async for e in run.time_travel_stream("double", input={"n": 6})]
    assert types[-1] == "workflow-finish" and types.count("workflow-finish") == 1 and (await run.result()).result == {"total": 12}
    fork = await run.fork("double", input={"n": 7}, run_id="forked")
    assert fork.id == "forked" and (await fork.result(timeout=10)).unwrap() == Receipt(total=14)
    other = run.fork("double", input={"n": 8})
    assert (await other.start()).result == {"total": 16} and (await noria.runs.list(doubles)).total == 3
    with pytest.raises(StepNotFound, match="double"):
        await run.time_travel("nope")
    with pytest.raises(RunNotActive):
        await run.restart()


async def test_all_active_runs_are_restarted_by_the_api(api: Noria, noria: Noria) -> None:
    runs = [api.create_run(endless) for _ in range(3)]
    for run in runs:
        await run.start_async()
    await api.create_run(confirms).start()
    assert await api.runs.restart_active("confirms") == [] and await api.runs.restart_active() == [run.id for run in runs]
    sent = await noria.broker.commands.started("endless")
    assert set(sent.values()) == {2}
    await runs[0].cancel(timeout=None)
    assert (await runs[0].result()).status == "canceled" and await api.runs.restart_active() == [run.id for run in runs[1:]]


async def test_a_command_whose_answer_is_lost_is_asked_for_again_and_done_once(
    noria: Noria, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "API_WAIT_SECONDS", 1.0)
    monkeypatch.setattr(remote_run, "ANSWER_SECONDS", 1.0)  # asked again sooner
    monkeypatch.setitem(remote_run.Api.ask.__kwdefaults__, "within", 1.0)
    ran = Counter[str]()

    @step
    async def count(x: Any, ctx: Context) -> Any:
        ran[ctx.run_id] += 1
        return x

    @step
    async def twice(x: Any, ctx: Context) -> Any:
        return ctx.suspend({"first": x}) if ctx.resume_data is None else ctx.resume_data

    counting = Workflow("counting", schedule=Cron("0 0 29 2 *", id="leap")).then(count).commit()
    asking = Workflow("asking").then(twice).then(twice.clone(id="more")).commit()

    async def starts(api: Noria, lose: Callable[[], asyncio.Future[None]]) -> None:
        lost = lose()
        assert (await api.run(counting, 1, run_id="starts")).result == 1
        assert lost.done() and ran["starts"] == 1
        with pytest.raises(RunAlreadyStarted, match="starts"):
            await api.run(counting, 1, run_id="starts")

    async def resumes(api: Noria, lose: Callable[[], asyncio.Future[None]]) -> None:
        run = api.create_run(asking, "resumes")
        await run.start(1)
        lost = lose()
        result = await run.resume(2)
        assert lost.done() and [s.payload for s in result.suspended] == [{"first": 2}]
        assert (await run.resume(3)).result == 3

    async def travels(api: Noria, lose: Callable[[], asyncio.Future[None]]) -> None:
        run = api.create_run(counting, "travels")
        await run.start(1)
        lost = lose()
        assert (await run.time_travel(count, input=5)).result == 5
        assert lost.done() and ran["travels"] == 2
        lost = lose()
        assert (await (await run.fork(count, input=6, run_id="forks")).result()).result == 6
        assert lost.done() and ran["forks"] == 1

    async def schedules(api: Noria, lose: Callable[[], asyncio.Future[None]]) -> None:
        lost = lose()
        run_id = await api.schedules.run("leap")
        assert (await api.create_run(counting, run_id).result(timeout=20)).status == "success" and ran[run_id] == 1
        assert lost.done()

    async def deletes(api: Noria, lose: Callable[[], asyncio.Future[None]]) -> None:
        run_id = (await api.run(counting, 1)).run_id
        lost = lose()
        await api.runs.delete(run_id, counting)
        assert lost.done()
        with pytest.raises(RunNotFound):
            await api.runs.delete(run_id, counting)

    async def through_a_bad_line(case: Callable[[Noria, Callable[[], asyncio.Future[None]]], Awaitable[None]]) -> None:
        async with Proxy(server_url) as proxy, Noria.connect(proxy.url, namespace=noria.namespace, via="api") as api:
            await case(api, lambda: proxy.lose(b"MSG "))

    async with noria.worker(counting, asking):
        await asyncio.gather(*(through_a_bad_line(case) for case in (starts, resumes, travels, schedules, deletes)))
        names = {r.run_id for r in (await noria.runs.list()).runs}
    assert {"starts", "resumes", "travels", "forks"} < names and len(names) == 5


async def test_plain_requests_may_be_asked_again(noria: Noria, server_url: str) -> None:
    async with noria.worker(*ALL, grace=0):

        async def req(verb: str, **body: Any) -> Any:
            return json.loads((await ask(server_url, noria.namespace, verb, json.dumps(body))).data)

        begun = await req("start", workflow="confirms", input=1, request_id="a1")
        assert begun["run_id"] == "a1" and begun == await req("start", workflow="confirms", input=1, request_id="a1")
        assert (await req("start", workflow="confirms", run_id="a1", request_id="a2"))["error"]["type"] == "RunAlreadyStarted"
        assert (await req("start", workflow="confirms", request_id="no good"))["error"]["type"] == "InvalidInput"
        resumed = await req("resume", run_id="a1", data=2, request_id="a1")  # another verb's, and so another request
        assert resumed["sequence"] > begun["sequence"] and resumed == await req("resume", run_id="a1", data=2, request_id="a1")


async def test_a_start_whose_answer_is_lost_is_known_again_behind_a_later_command(noria: Noria, server_url: str) -> None:
    """By the streams, where the append itself is tried again."""
    async with noria.worker(confirms), Proxy(server_url) as proxy, Noria.connect(proxy.url, namespace=noria.namespace) as client:
        await client.broker.provision()
        await client.broker.commands.hosted("confirms")
        lost = proxy.lose(b'"seq":', down=True)
        starting = asyncio.create_task(client.run(confirms, 1, run_id="r1"))
        await lost
        other = noria.create_run(confirms, "r1")
        assert (await other.result(timeout=20)).status == "suspended"
        assert (await other.resume(2)).result == 2
        proxy.up()
        assert (await asyncio.wait_for(starting, 40)).result == 2


async def test_nobody_serves_the_api(noria: Noria, server_url: str) -> None:
    async with Noria.connect(server_url, namespace=noria.namespace, via="api") as api:
        with pytest.raises(NoWorker, match=noria.namespace):
            await api.runs.list()


async def test_a_wait_outlives_the_worker_that_served_it(noria: Noria, server_url: str) -> None:
    async with Noria.connect(server_url, namespace=noria.namespace, via="api") as api:
        async with noria.worker(confirms):
            run = api.create_run(confirms, "w")
            await run.start(1)
            waiting = asyncio.create_task(run.observe().result())
            await asyncio.sleep(0.3)
        async with Noria.connect(server_url, namespace=noria.namespace) as other, other.worker(confirms):
            await run.resume({"late": True})
            assert (await asyncio.wait_for(waiting, 15)).result == {"late": True}

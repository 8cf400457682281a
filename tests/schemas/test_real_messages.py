"""Every message that a real run puts on the wire is valid by its schema, and every event is a CloudEvent."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from nats.aio.msg import Msg

from noria import Context, NonRetryable, Noria, Retry, Tripwire, Workflow, step
from noria.contract.channels import CHANNELS
from tests.live.test_triggers import publish
from tests.schemas.checking import name_of, problems, problems_of_event


@step
async def work(x: Any, ctx: Context) -> Any:
    ctx.set_state(seen=x)
    ctx.request_context["by"] = "work"
    await ctx.write("half way")
    await ctx.emit("scanned", {"code": 1})
    return x


@step
async def ask(x: Any, ctx: Context) -> Any:
    if ctx.resume_data is None:
        ctx.suspend({"x": x}, label=["manager"], output={"so": "far"})
    return ctx.resume_data


@step(retry=Retry(attempts=1))
async def fragile(x: Any, ctx: Context) -> Any:
    if ctx.attempt == 0:
        raise ValueError("first try")
    return x


@step
async def broken(x: Any) -> Any:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise NonRetryable("outer") from error


@step
async def trip(x: Any) -> Any:
    raise Tripwire("enough", retry=True, metadata={"n": 1})


inner = Workflow("inner").then(ask).then(work.clone(id="after")).commit()
items, whole = work.clone(id="item"), Workflow("whole").then(work.clone(id="part")).commit()
flow = (
    Workflow("all-kinds").then(work).map(lambda x: [x, x, x]).foreach(items, concurrency=2).foreach(items.clone(id="far"), placement="spread")
    .foreach(whole).map(lambda x: x[0]).parallel(work.clone(id="one"), fragile).map(lambda x: 0)
    .branch((lambda x: True, work.clone(id="yes")), (lambda x: False, work.clone(id="no"))).map(lambda x: 0)
    .do_until(work.clone(id="round"), lambda x, ctx: ctx.iteration >= 2).sleep(0.01).then(inner).sleep(2.3).commit()
)  # fmt: skip
failing, tripping = Workflow("failing").then(broken).commit(), Workflow("tripping").then(trip).commit()
listing = Workflow("listing").foreach(ask.clone(id="each")).commit()
nesting = Workflow("again", retry=Retry(attempts=1)).then(broken.clone(id="deep")).commit()
retrying = Workflow("retrying").then(nesting).commit()
FLOWS = (flow, failing, tripping, listing, retrying)


class Listener:
    """Sees whatever is published in the namespace and its buckets."""

    def __init__(self, noria: Noria) -> None:
        self.noria, self.seen, self.since = noria, Counter[str](), datetime.now(UTC)
        self.problems: list[str] = []
        self.subjects: set[str] = set()

    async def listen(self) -> Any:
        subjects = self.noria.broker.subjects
        wanted = [f"{subjects.ns}.>", f"$KV.{subjects.records}.>", f"$KV.{subjects.catalogue}.>"]
        return [await self.noria.broker.connection.subscribe(subject, self.arrived) for subject in wanted]

    def arrived(self, msg: Msg) -> None:
        self.subjects.add(msg.subject)
        kind = msg.subject.split(".")[1]
        if kind in ("nudge", "blob", "worker", "host", "dead", "step", "api"):
            return
        body = json.loads(msg.data) if msg.data else None
        for name, value in self.parts(kind, msg, body):
            self.seen[name] += 1
            if name.startswith("events/") and name != "events/batch":
                self.problems += problems_of_event(value)
                if datetime.fromisoformat(value["time"]) < self.since - timedelta(seconds=1):
                    self.problems.append(f"{name}: its time is {value['time']}")
            else:
                self.problems += problems(name, value)

    def parts(self, kind: str, msg: Msg, body: Any) -> list[tuple[str, Any]]:
        subjects = self.noria.broker.subjects
        if isinstance(body, dict) and "noria_blob" in body:
            return [("records/slip", body)]
        if kind in ("run", "live"):
            batch = [("events/batch", body)] if isinstance(body, list) else []
            return [*batch, *((name_of(e), e) for e in (body if isinstance(body, list) else [body]))]
        if kind in ("in", "timer"):
            return [(f"commands/{body['kind']}", body)]
        if kind == "rest":
            return [("news/rest", body)]
        if kind == "trigger":
            return [("cloudevent", body)]
        if kind == subjects.records:
            summary = (msg.headers or {}).get("Noria-Summary")
            return [("records/record", body), *([("records/summary", json.loads(summary))] if summary else [])]
        return [("records/workflow", body)] if kind == subjects.catalogue and msg.subject.count(".") == 2 else []


async def test_what_real_runs_put_on_the_wire(noria: Noria, server_url: str) -> None:
    await noria.broker.provision()
    listener = Listener(noria)
    stops = await listener.listen()
    async with noria.worker(*FLOWS):
        run = noria.create_run(flow, "whole", "customer-1")
        assert (await run.start({"n": 1}, state={"began": True}, request_context={"tenant": "acme"})).status == "suspended"
        assert (await run.resume({"ok": 1}, request_context={"approved": True})).status == "success"
        assert (await run.time_travel("one")).status in ("success", "suspended")
        assert (await noria.run(failing, 1)).status == "failed" and (await noria.run(tripping, 1)).status == "tripwire"
        assert (await noria.run(retrying, 1)).status == "failed"
        listed = noria.create_run(listing)
        await listed.start([1, 2])
        await listed.cancel()
        stepwise = noria.create_run(flow)
        assert (await stepwise.start(1, per_step=True)).status == "paused"
        large = noria.create_run(Workflow("large").then(work).commit())
        async with noria.worker(large._given):
            assert (await large.start("x" * 300_000)).status == "success"
        event = {"specversion": "1.0", "id": "e1", "source": "/s", "type": "t", "data": 1, "runid": "triggered"}
        await publish(server_url, f"{noria.namespace}.trigger.failing", json.dumps(event).encode())
        await noria.create_run(failing, "triggered").result(timeout=10)
        await noria.runs.delete(listed.id, listing)
        await asyncio.sleep(0.2)
    for stop in stops:
        await stop()
    assert listener.problems == [], "\n".join(listener.problems)
    events = ("start", "step-start", "step-output", "step-progress", "step-result", "step-suspended", "step-waiting", "finish", "paused", "rewound")
    wanted = {
        *(f"events/workflow-{type}" for type in events), "events/custom", "events/batch", "events/block-ended", "events/condition-answered",
        *(f"commands/{kind}" for kind in ("start", "resume", "cancel", "timer", "time-travel")),
        "news/rest", "records/record", "records/summary", "records/slip", "records/workflow", "cloudevent",
    }  # fmt: skip
    assert wanted <= set(listener.seen), wanted - set(listener.seen)
    prefixes = [c.filter(noria.broker.subjects).removesuffix(">") for c in CHANNELS]
    assert not [s for s in listener.subjects if not s.startswith(tuple(prefixes))], "a subject that no channel names"

"""Spans, metrics and log lines of real runs, read from the SDK's in-memory exporters."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from tests.live.test_triggers import publish

from noria import Context, Noria, NoriaError, Retry, Workflow, runlog, step
from noria.ports import ActorKey
from noria.telemetry import metrics
from noria.telemetry.observer import OtelObserver


class Seen:
    """What telemetry exported."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.observer = OtelObserver(self.provider, MeterProvider([self.reader]))

    def spans(self, name: str = "") -> list[ReadableSpan]:
        return [s for s in self.exporter.get_finished_spans() if s.name.startswith(name)]

    def the(self, name: str) -> ReadableSpan:
        (found,) = [s for s in self.spans() if s.name == name]
        return found

    def metric(self, name: str) -> dict[tuple[Any, ...], Any]:
        data: Any = self.reader.get_metrics_data()
        found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics if m.name == name] if data else []
        return {tuple(sorted(p.attributes.items())): p for m in found for p in m.data.data_points}

    async def count(self, spans: int, name: str) -> list[ReadableSpan]:
        """A hosting's span ends just after the caller's news."""
        for _ in range(1500):
            if len(self.spans(name)) >= spans:
                break
            await asyncio.sleep(0.01)
        assert len(self.spans(name)) == spans, [s.name for s in self.spans()]
        return self.spans(name)


@pytest.fixture
def seen(noria: Noria) -> Seen:
    found = Seen()
    noria.observer = found.observer
    return found


@step
async def first(x: int, ctx: Context) -> int:
    SPANS.append(ctx.span)
    return x + 1


@step
def threaded(x: int, ctx: Context) -> int:
    SPANS.append(trace.get_current_span())
    return x + 1


@step(retry=Retry(attempts=1))
async def flaky(x: int, ctx: Context) -> int:
    if ctx.attempt == 0:
        raise ValueError("not yet")
    return x


@step
async def ask(x: int, ctx: Context) -> int:
    if ctx.resume_data is None:
        ctx.suspend({"x": x})
    return int(ctx.resume_data)


@step
async def broken(x: int) -> int:
    raise RuntimeError("no")


SPANS: list[Any] = []
inner = Workflow("inner").then(first.clone(id="deep")).commit()
plainly = Workflow("plainly").then(first).commit()
failing = Workflow("failing").then(broken).commit()
listed = Workflow("listed").then(ask).map(lambda x: [x]).foreach(first.clone(id="each"), placement="spread").commit()


async def test_a_run_is_one_trace_over_client_hosts_steps_and_suspensions(noria: Noria, seen: Seen) -> None:
    SPANS.clear()
    tracer = seen.provider.get_tracer("mine")
    run = noria.create_run(listed)
    async with noria.worker(listed):
        with tracer.start_as_current_span("request") as outer:
            assert (await run.start(1)).status == "suspended"
        await seen.count(1, "run listed")
    async with noria.worker(listed):
        with tracer.start_as_current_span("approval"):
            assert (await run.resume(5)).result == [6]
        one, two = await seen.count(2, "run listed")
        await seen.count(1, "child listed each=0")
    request = outer.get_span_context()
    start, resume = seen.the("start listed"), seen.the("resume listed")
    assert start.context.trace_id == request.trace_id and start.parent.span_id == request.span_id
    assert resume.parent.span_id == seen.the("approval").context.span_id
    assert {s.context.trace_id for s in (one, two)} == {request.trace_id}
    assert {s.parent.span_id for s in (one, two)} == {start.context.span_id}
    assert [link.context.span_id for link in two.links] == [resume.context.span_id] and not one.links
    assert (one.attributes["noria.status"], two.attributes["noria.status"]) == ("suspended", "success")
    spread = seen.the("child listed each=0")
    assert spread.context.trace_id == request.trace_id and spread.parent.span_id == two.context.span_id
    assert seen.the("step each").parent.span_id == spread.context.span_id
    statuses = [(s.attributes["noria.status"], s.parent.span_id) for s in seen.spans("step ask")]
    assert statuses == [("suspended", one.context.span_id), ("success", two.context.span_id)]
    assert all(s.attributes["noria.run_id"] == run.id for s in seen.spans() if s.name not in ("request", "approval"))


async def test_steps_sleeps_and_nested_workflows_have_spans_with_their_parents(noria: Noria, seen: Seen) -> None:
    SPANS.clear()
    quick = Workflow("quick").then(first).then(threaded).then(flaky).sleep(0.05).then(inner)
    quick = quick.map(lambda x: [x, x]).foreach(first.clone(id="each")).commit()
    async with noria.worker(quick):
        result = await noria.run(quick, 1)
        assert result.result == [5, 5]
        (hosting,) = await seen.count(1, "run quick")
    here = {s.name: s for s in seen.spans()}
    below = ("step first", "step threaded", "sleep sleep-3", "child inner", "step each")
    assert all(here[name].parent.span_id == hosting.context.span_id for name in below)
    assert here["step deep"].parent.span_id == here["child inner"].context.span_id
    assert {s.get_span_context().span_id for s in SPANS} == {
        s.context.span_id for n in ("step first", "step threaded", "step deep", "step each") for s in seen.spans(n)
    }
    tries = seen.spans("step flaky")
    assert [s.attributes["noria.attempt"] for s in tries] == [0, 1] and tries[0].status.status_code is StatusCode.ERROR
    assert tries[0].events[0].attributes["exception.message"] == "not yet"
    assert sorted(s.attributes["noria.path"] for s in seen.spans("step each")) == ["each=0", "each=1"]
    nap = here["sleep sleep-3"]
    assert nap.end_time - nap.start_time >= 45_000_000


async def test_mappings_and_conditions_have_spans(noria: Noria, seen: Seen) -> None:
    flow = (
        Workflow("choosing").map({"n": 1}, id="made").map(lambda x: x["n"], id="picked")
        .branch((lambda x: True, first), (lambda x: False, first.clone(id="other"))).map(lambda x: x["first"], id="back")
        .do_until(first.clone(id="again"), lambda x: x >= 4).then(Workflow("below").map(lambda x: x, id="inside").then(first.clone(id="last")))
        .map(lambda x: 1 // 0, id="fails")
    ).commit()  # fmt: skip
    async with noria.worker(flow):
        assert (await noria.run(flow, 1)).status == "failed"
        (hosting,) = await seen.count(1, "run choosing")
    names = Counter(s.name for s in seen.spans() if s.name.startswith(("mapping", "condition")))
    made = ("made", "picked", "back", "inside", "fails")
    assert names == {**{f"mapping {id}": 1 for id in made}, "condition branch-2": 1, "condition again": 2}
    inside = seen.the("mapping inside")
    assert inside.parent.span_id == seen.the("child below").context.span_id
    assert (inside.attributes["noria.path"], inside.attributes["noria.step"]) == ("below", "inside")
    assert seen.the("condition branch-2").parent.span_id == hosting.context.span_id
    failed = seen.the("mapping fails")
    assert failed.status.status_code is StatusCode.ERROR and failed.events[0].attributes["exception.type"] == "ZeroDivisionError"


async def test_every_command_has_a_span_that_is_linked_with_the_run(noria: Noria, seen: Seen) -> None:
    begun = asyncio.Event()

    @step
    async def endless(x: Any) -> None:
        begun.set()
        await asyncio.sleep(60)

    slow = Workflow("slow").then(endless).commit()
    origin, held = noria.create_run(listed), noria.create_run(slow)
    async with noria.worker(listed, slow, grace=0):
        assert (await origin.start(1)).status == "suspended"
        await origin.resume(5)
        await origin.time_travel("ask", input=2)
        fork = await origin.fork("ask", input=3)
        assert (await fork.result()).status == "suspended"
        await held.start_async(1)
        await begun.wait()
        with pytest.raises((TimeoutError, NoriaError)):  # it runs: whoever is asked says so late
            await held.restart(timeout=0.1)
        await held.cancel()
        await seen.count(4, "run listed")
        await seen.count(1, "run slow")

    def links(span: ReadableSpan) -> list[int]:
        return [link.context.span_id for link in span.links]

    start, begin = seen.the("start listed"), seen.the("start slow")
    for verb, flow, of in (("resume", "listed", start), ("time-travel", "listed", start), ("fork", "listed", start),
                           ("restart", "slow", begin), ("cancel", "slow", begin)):  # fmt: skip
        span = seen.the(f"{verb} {flow}")
        assert links(span) == [of.context.span_id] and span.attributes["noria.workflow"] == flow
        if verb in ("resume", "time-travel"):
            assert [links(s) for s in seen.spans("run listed")].count([span.context.span_id]) == 1
    (hosting,) = seen.spans("run slow")  # it was hosted by the start's delivery when they came
    assert links(hosting) == [seen.the(f"{verb} slow").context.span_id for verb in ("restart", "cancel")]
    forked = seen.the("fork listed")
    (beginning,) = [s for s in seen.spans("run listed") if s.attributes["noria.run_id"] == fork.id]
    assert beginning.parent.span_id == forked.context.span_id and not links(beginning)


async def test_a_sleep_behind_a_timer_is_one_span_of_its_whole_length(noria: Noria, seen: Seen) -> None:
    long = Workflow("long").sleep(2.4).commit()
    async with noria.worker(long):
        run = noria.create_run(long)
        await run.start_async(1)
        await seen.count(1, "run long")
    async with noria.worker(long):
        assert (await run.result(timeout=10)).status == "success"
        await seen.count(2, "run long")
    nap = seen.the("sleep sleep-0")
    assert nap.end_time - nap.start_time >= 2_390_000_000
    assert len({s.context.trace_id for s in seen.spans()}) == 1


async def test_events_and_triggers_carry_the_traceparent(noria: Noria, seen: Seen, server_url: str) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    event = {"specversion": "1.0", "id": "e1", "source": "/s", "type": "t", "data": 3, "runid": "r1"}
    event["traceparent"] = f"00-{trace_id}-b7ad6b7169203331-01"
    async with noria.worker(plainly):
        await publish(server_url, f"{noria.namespace}.trigger.plainly", json.dumps(event).encode())
        assert (await noria.create_run(plainly, "r1").result(timeout=10)).result == 4
        (hosting,) = await seen.count(1, "run plainly")
    assert f"{hosting.context.trace_id:032x}" == trace_id
    facts = [json.loads(s.body) for s in await noria.broker.log.read(ActorKey("plainly", "r1"))]
    flat = [e for f in facts for e in (f if isinstance(f, list) else [f])]
    assert flat and {e["traceparent"] for e in flat} == {f"00-{trace_id}-{hosting.context.span_id:016x}-01"}


async def test_a_run_without_any_trace_still_has_one(noria: Noria, seen: Seen) -> None:
    noria.observer, watched = None, noria.observer
    run = noria.create_run(listed)
    await noria.broker.provision()
    await run.start_async(1)  # by a process without telemetry
    noria.observer = watched
    for go_on in (run.result, lambda: run.resume(1)):
        async with noria.worker(listed):
            await go_on()
            await asyncio.sleep(0.05)
    assert len({s.context.trace_id for s in seen.spans("run")}) == 1 and len(seen.spans("run")) == 2


async def test_metrics_count_what_happened(noria: Noria, seen: Seen) -> None:
    async with noria.worker(plainly, failing, listed):
        for n in range(3):
            await noria.run(plainly, n)
        await noria.run(failing, 1)
        await noria.run(listed, 1)
        await seen.count(5, "run ")
        assert seen.metric("noria.actors.active")[(("workflow", "plainly"),)].value == 0
    runs = {k: p.value for k, p in seen.metric("noria.runs").items()}
    assert runs == {
        (("status", "success"), ("workflow", "plainly")): 3,
        (("status", "failed"), ("workflow", "failing")): 1,
        (("status", "suspended"), ("workflow", "listed")): 1,
    }
    steps = seen.metric("noria.step.duration")
    assert steps[(("status", "success"), ("step", "first"), ("workflow", "plainly"))].count == 3
    assert steps[(("status", "failed"), ("step", "broken"), ("workflow", "failing"))].count == 1
    lag = seen.metric("noria.command.lag")[(("workflow", "plainly"),)]
    assert lag.count == 3 and 0 <= lag.sum < 3
    appends = {dict(k)["workflow"]: p.value for k, p in seen.metric("noria.appends").items()}
    assert appends == {"plainly": 3, "failing": 1, "listed": 1}
    assert not seen.metric("noria.conflicts") and not seen.metric("noria.redeliveries")


async def test_take_overs_count_redeliveries_and_conflicts(noria: Noria, seen: Seen) -> None:
    gate = asyncio.Event()

    @step
    async def hold(x: int) -> int:
        await gate.wait()
        return x

    held = Workflow("held").then(hold).commit()
    async with noria.worker(held, lease=0.6, concurrency=1) as slow:  # no room: the redelivery goes to the other
        run = noria.create_run(held)
        await run.start_async(1)
        await asyncio.sleep(0.1)
        slow.host._renewer.cancel()  # as if frozen
        slow.host.overslept = lambda: False
        async with noria.worker(held, lease=0.6):
            for _ in range(100):
                if seen.metric("noria.redeliveries"):
                    break
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.2)
            gate.set()
            assert (await run.result(timeout=10)).status == "success"
            for _ in range(100):
                if seen.metric("noria.conflicts"):
                    break
                await asyncio.sleep(0.05)
    assert seen.metric("noria.redeliveries")[(("workflow", "held"),)].value >= 1
    assert seen.metric("noria.conflicts")[(("workflow", "held"),)].value >= 1
    assert Counter(s.attributes["noria.status"] for s in seen.spans("run held"))["success"] == 1


async def test_every_metric_that_is_defined_is_exported(seen: Seen) -> None:
    meters = seen.observer.meters
    for counter in (meters.runs, meters.appends, meters.conflicts, meters.redeliveries, meters.active):
        counter.add(1)
    meters.steps.record(1)
    meters.lag.record(1)
    assert all(seen.metric(m.name) for m in metrics.ALL)


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_log_lines_name_their_run(noria: Noria, caplog: pytest.LogCaptureFixture, server_url: str, elsewhere: bool) -> None:
    caplog.handler.addFilter(runlog.RunFilter())

    @step
    def talk(x: int, ctx: Context) -> int:
        logging.getLogger("somebody.else").warning("working")
        ctx.log.warning("mine")
        return x

    talking = Workflow("talking").then(talk).then(broken).commit()
    async with (
        Noria.connect(server_url, namespace=noria.namespace) as other,
        noria.worker(talking, steps=not elsewhere), other.worker(talking, runs=not elsewhere),
    ):  # fmt: skip
        result = await noria.run(talking, 1)
    ours = [r for r in caplog.records if r.message in ("working", "mine") or "broken" in r.message]
    assert len(ours) == 3 and {r.run_id for r in ours} == {result.run_id} and {r.workflow for r in ours} == {"talking"}
    logging.getLogger("outside").warning("outside")
    assert caplog.records[-1].run_id == "" and caplog.records[-1].run_suffix == ""


SCRIPT = """
import asyncio, sys
from noria import Noria, Workflow, step
@step
async def s(x, ctx):
    return ctx.span.get_span_context().is_valid
flow = Workflow("auto").then(s).commit()
async def main():
    async with Noria.connect(sys.argv[1], namespace=sys.argv[2]) as noria:
        before = noria.observer
        if sys.argv[3] == "sdk":
            from opentelemetry import trace
            from opentelemetry.sdk.trace import TracerProvider
            trace.set_tracer_provider(TracerProvider())
        async with noria.worker(flow):
            print(before, (await noria.run(flow, 1)).result, noria.observer is not None)
asyncio.run(main())
"""


@pytest.mark.parametrize(("how", "printed"), [("sdk", "None True True"), ("none", "None False False")])
async def test_telemetry_is_on_as_soon_as_the_process_has_a_provider(noria: Noria, server_url: str, how: str, printed: str) -> None:
    args = [sys.executable, "-c", SCRIPT, server_url, noria.namespace, how]
    done = await asyncio.to_thread(subprocess.run, args, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == printed, done.stderr

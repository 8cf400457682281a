"""Steps whose handlers live in other processes: called by request and reply."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from pydantic import BaseModel

from noria import Context, NonRetryable, Noria, Retry, Tripwire, Workflow, from_step, remote_step, step
from noria.actor import elsewhere, perform
from noria.clock import monotonic
from noria.contract.calls import StepCall


class Order(BaseModel):
    sku: str
    n: int = 1


@asynccontextmanager
async def split(noria: Noria, url: str, *workflows: Workflow, **options: Any) -> AsyncIterator[Noria]:
    """One worker that hosts runs only, and one on a connection of its own that serves steps only."""
    async with (
        Noria.connect(url, namespace=noria.namespace) as other,
        other.worker(*workflows, runs=False, grace=0),
        noria.worker(*workflows, steps=False, grace=0, **options),
    ):
        yield other


async def test_everything_a_step_can_do_passes_through(noria: Noria, server_url: str) -> None:
    seen: dict[str, Any] = {}

    @step
    async def reserve(order: Order, ctx: Context) -> dict[str, Any]:
        seen.update(type=type(order), client=ctx.client, key=ctx.idempotency_key, path=ctx.path, run=ctx.run_id, resource=ctx.resource_id)
        ctx.set_state(reserved=order.n)
        ctx.request_context["by"] = "handler"
        del ctx.request_context["old"]
        await ctx.write({"half": True})
        await ctx.emit("note", [1])
        return {"id": order.sku, "state": ctx.state}

    @step
    def check(x: Any, ctx: Context) -> Any:
        assert ctx.step_result(reserve) == x and ctx.step_result("nope", 7) == 7 and ctx.init_data == {"sku": "a", "n": 3}
        assert ctx.state["reserved"] == 3 and ctx.state["first"] == 1 and dict(ctx.request_context) == {"by": "handler"}
        if ctx.resume_data is None:
            ctx.set_state(asked=True)
            ctx.suspend({"why": x["id"]}, label="ok", output="partial")
        assert ctx.suspend_data == {"why": "a"}
        return ctx.resume_data

    flow = Workflow("all", input=Order).then(reserve).then(check).commit()
    async with split(noria, server_url, flow) as other:
        run = noria.create_run(flow, "r", "res")
        stream = run.stream(Order(sku="a", n=3), state={"first": 1}, request_context={"old": 1})
        events = [e async for e in stream]
        result = await stream.result()
        assert result.status == "suspended" and result.suspended[0].payload == {"why": "a"} and result.suspended[0].labels == ("ok",)
        assert result.steps["check"].suspend_output == "partial" and result.state == {"first": 1, "reserved": 3, "asked": True}
        assert (seen["type"], seen["client"], seen["run"], seen["resource"], seen["path"]) == (Order, other, "r", "res", ())
        assert "all:r" in seen["key"]
        middle = [(e.type, e.step, e.data) for e in events if e.type in ("workflow-step-output", "note")]
        assert middle == [("workflow-step-output", "reserve", {"output": {"half": True}}), ("note", "reserve", [1])]
        assert (await run.resume({"go": 1})).result == {"go": 1}


async def test_failures_keep_their_type_attributes_and_cause(noria: Noria, server_url: str) -> None:
    tries: dict[str, int] = {}

    class Declined(Exception):
        def __init__(self, code: int) -> None:
            super().__init__(f"declined with {code}")
            self.code = code

    def failing(id: str, error: Callable[[], Exception], **options: Any) -> Workflow:
        async def fail(x: Any, ctx: Context) -> None:
            tries[id] = tries.get(id, 0) + 1
            assert ctx.attempt == tries[id] - 1
            raise error() from KeyError("root")

        return Workflow(id).then(step(fail, id="fail", retry=Retry(attempts=2), **options)).commit()

    flows = [failing("plain", lambda: Declined(7)), failing("final", lambda: NonRetryable("no")), failing("trip", lambda: Tripwire("stop", True, 5))]
    async with split(noria, server_url, *flows):
        plain, final, trip = [await noria.run(flow, timeout=20) for flow in flows]
    assert tries == {"plain": 3, "final": 1, "trip": 1}
    error = plain.error
    assert plain.status == "failed" and error is not None and error.type == "Declined" and error.message == "declined with 7"
    assert error.attributes == {"code": 7} and error.cause is not None and error.cause.type == "KeyError" and plain.steps["fail"].attempts == 3
    assert final.error is not None and final.error.type == "NonRetryable"
    assert trip.status == "tripwire" and trip.tripwire is not None
    assert (trip.tripwire.reason, trip.tripwire.retry, trip.tripwire.metadata) == ("stop", True, 5)


async def test_bail_abort_input_and_nested(noria: Noria, server_url: str) -> None:
    @step
    async def bails(x: int, ctx: Context) -> int:
        ctx.bail({"early": x})

    @step
    async def aborts(x: int, ctx: Context) -> int:
        ctx.abort()

    @step
    async def doubles(x: int) -> int:
        return x * 2

    inner = Workflow("inner").foreach(doubles, concurrency=4).commit()
    outer = Workflow("outer").then(inner).map({"all": from_step("inner")}).commit()
    bailing = Workflow("bailing").then(bails).then(doubles).commit()
    aborting = Workflow("aborting").then(aborts).commit()
    async with split(noria, server_url, outer, bailing, aborting):
        assert (await noria.run(outer, list(range(10)))).result == {"all": [x * 2 for x in range(10)]}
        assert (await noria.run(bailing, 3)).result == {"early": 3}
        assert (await noria.run(aborting, 3)).status == "canceled"
        wrong = await noria.run(bailing, "x")
        assert wrong.error is not None and wrong.error.type == "InvalidInput" and "bails" in wrong.error.message


async def test_a_run_waits_for_a_handler_without_losing_a_try(noria: Noria, server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = Workflow("lonely", retry=Retry(attempts=0)).then(remote_step("far", input=int, output=int)).commit()

    @step(id="far")
    async def far(x: int) -> int:
        return x + 1

    served = Workflow("lonely").then(far).commit()
    async with noria.worker(flow) as worker, Noria.connect(server_url, namespace=noria.namespace) as other:
        run = asyncio.create_task(noria.run(flow, 1, run_id="short"))
        await asyncio.sleep(0.5)
        async with other.worker(served, runs=False):
            result = await asyncio.wait_for(run, 10)
        assert (result.status, result.result, result.steps["far"].attempts) == ("success", 2, 1)

        monkeypatch.setattr(elsewhere, "HANDLER_PATIENCE_SECONDS", 0.2)
        monkeypatch.setattr(perform, "NO_HANDLER_PAUSES", (1.0, 2.0))
        await noria.create_run(flow, "long").start_async(5)
        async with asyncio.timeout(10):
            while (await noria.runs.get("long")).status != "waiting":  # type: ignore[union-attr]
                await asyncio.sleep(0.05)
        assert not worker.host._activations
        async with other.worker(served, runs=False):
            result = await noria.create_run(flow, "long").result(timeout=15)
        assert (result.status, result.result, result.steps["far"].attempts) == ("success", 6, 1)


HANDLER = """
import asyncio, sys, os
from noria import Context, Noria, Workflow, step
@step
async def slow(x: int, ctx: Context) -> dict:
    open(sys.argv[3], "a").write(f"{os.getpid()} {ctx.idempotency_key} {ctx.recovered}\\n")
    await asyncio.sleep(0 if ctx.recovered else 60)
    return {"pid": os.getpid()}
async def main():
    async with Noria.connect(sys.argv[1], namespace=sys.argv[2]) as noria:
        await noria.serve(Workflow("dies").then(slow).commit(), runs=False, grace=float(sys.argv[4]))
asyncio.run(main())
"""


def handler(url: str, namespace: str, log: Path, grace: float = 10) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", HANDLER, url, namespace, str(log), str(grace)], env=dict(os.environ))


async def lines(log: Path, count: int) -> list[list[str]]:
    async with asyncio.timeout(20):
        while not log.exists() or len(log.read_text().splitlines()) < count:
            await asyncio.sleep(0.05)
    return [line.split() for line in log.read_text().splitlines()]


async def test_a_handler_that_dies_or_stops_is_replaced(
    noria: Noria, server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(elsewhere, "CALL_HEARTBEAT_SECONDS", 0.7)
    log = tmp_path / "calls"
    flow = Workflow("dies").then(remote_step("slow", input=float)).commit()
    processes = [handler(server_url, noria.namespace, log)]
    try:
        async with noria.worker(flow):
            run = asyncio.create_task(noria.run(flow, 1.0, run_id="killed"))
            ((first, *_),) = await lines(log, 1)
            processes[0].kill()
            processes.append(handler(server_url, noria.namespace, log, grace=0))
            result = await asyncio.wait_for(run, 30)
            (_, second) = await lines(log, 2)
            assert result.status == "success" and result.result == {"pid": int(second[0])} and second[0] != first
            assert result.steps["slow"].attempts == 1 and second[2] == "True" and second[1] == (await lines(log, 1))[0][1]
            assert "run killed is called again: no sign of life" in caplog.text

            run = asyncio.create_task(noria.run(flow, 2.0, run_id="stopped"))
            await lines(log, 3)
            processes.append(handler(server_url, noria.namespace, log))
            processes[1].send_signal(signal.SIGTERM)
            result = await asyncio.wait_for(run, 30)
            (why,) = [r.getMessage() for r in caplog.records if "run stopped is called again" in r.getMessage()]
            assert result.status == "success" and "stops" in why, "it hands its call back"
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def test_cancel_and_timeout_reach_the_handler(noria: Noria, server_url: str) -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()
    begun = asyncio.Event()

    @step
    async def sleeps(x: Any, ctx: Context) -> None:
        begun.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.put_nowait(f"{ctx.run_id} {ctx.cancelled.is_set()}")
            raise

    flow = Workflow("sleepy").then(sleeps).commit()
    late = Workflow("late").then(step(sleeps.fn.fn, id="sleeps", timeout=0.5)).commit()
    async with split(noria, server_url, flow, late):
        run = noria.create_run(flow, "c")
        await run.start_async()
        await asyncio.wait_for(begun.wait(), 20)
        began = monotonic()
        await run.cancel()
        assert await asyncio.wait_for(ended.get(), 2) == "c True" and monotonic() - began < 2
        result = await noria.run(late, run_id="t", timeout=10)
        assert result.error is not None and result.error.type == "StepTimeout" and "sleeps" in result.error.message


async def test_a_step_can_be_called_by_hand(noria: Noria, server_url: str) -> None:
    @step
    async def double(order: Order) -> Order:
        """Twice as many."""
        return Order(sku=order.sku, n=order.n * 2)

    async with noria.worker(Workflow("hand", input=Order).then(double).commit()):
        client = await nats.connect(server_url)
        msg = await client.request(f"{noria.namespace}.step.hand.double", b'{"input": {"sku": "a", "n": 4}}', timeout=5)
        assert json.loads(msg.data)["output"] == {"sku": "a", "n": 8}
        msg = await client.request(f"{noria.namespace}.step.hand.double", b'{"input": {"n": 4}}', timeout=5)
        failed = json.loads(msg.data)
        assert failed["status"] == "failed" and failed["error"]["type"] == "InvalidInput" and not failed["retryable"]
        msg = await client.request(f"{noria.namespace}.step.hand.double", b'{"path": 5}', timeout=5)
        assert msg.headers["Nats-Service-Error-Code"] == "400" and "path" in msg.headers["Nats-Service-Error"]
        await client.close()


async def test_a_service_of_another_make(noria: Noria, server_url: str) -> None:
    """Replies by hand: what a handler in any language may send, right and wrong."""
    flow = Workflow("made", retry=Retry(attempts=1)).then(remote_step("other", subject=f"{noria.namespace}.mine", input=str)).commit()
    answers = {"ok": b'{"status": "success", "output": [1]}', "odd": b'{"status": "great"}', "text": b"hello"}
    calls: list[StepCall] = []
    client = await nats.connect(server_url)

    async def serve(msg: Any) -> None:
        calls.append(call := StepCall.model_validate_json(msg.data))
        headers = {"Nats-Service-Error": "out of stock", "Nats-Service-Error-Code": "409"} if call.input == "refused" else None
        await client.publish(msg.reply, answers.get(call.input, b""), headers=headers)

    await client.subscribe(f"{noria.namespace}.mine", cb=serve)
    async with noria.worker(flow):
        assert (await noria.run(flow, "ok")).result == [1]
        refused = await noria.run(flow, "refused")
        assert refused.error is not None and (refused.error.message, refused.error.attributes) == ("out of stock", {"code": "409"})
        assert refused.steps["other"].attempts == 2 and calls[-1].attempt == 1 and calls[-1].timeout is None
        for wrong in ("odd", "text"):
            result = await noria.run(flow, wrong)
            assert result.error is not None and "not a reply of a step handler" in result.error.message, result.error
    await client.close()


LARGE = 3_000_000


async def passing(noria: Noria) -> list[str]:
    """Messages of calls that are still in the blobs."""
    stream, wanted = noria.broker.subjects.blobs, {"subjects_filter": f"{noria.namespace}.blob.>"}
    found = await noria.broker.connection.api(f"STREAM.INFO.{stream}", wanted)
    return [subject for subject in found["state"].get("subjects") or {} if ".call-" in subject]


async def test_what_no_message_can_hold_goes_by_reference(noria: Noria, server_url: str) -> None:
    @step
    async def grow(x: Any, ctx: Context) -> Any:
        assert len(x) == LARGE and len(ctx.init_data) == LARGE
        ctx.set_state(kept=x[:10])
        await ctx.write(x)
        return x + "!"

    @step
    async def wait(x: str, ctx: Context) -> Any:
        return len(x) if ctx.resume_data is None and len(x) < 10 else ctx.resume_data or ctx.suspend(x)

    @step
    async def broken(x: Any) -> Any:
        raise ValueError("y" * LARGE)

    def count(x: Any, ctx: Context) -> Any:
        return [len(x), len(ctx.step_result("grower"))]

    inner = Workflow("grower").then(grow).commit()
    flow = Workflow("large").then(inner).then(wait).then(step(count)).commit()
    failing = Workflow("failing").then(broken).commit()
    async with split(noria, server_url, flow, failing):
        run = noria.create_run(flow, "big")
        stream = run.stream("x" * LARGE)
        written = [e.data["output"] async for e in stream if e.type == "workflow-step-output"]
        result = await stream.result()
        assert result.status == "suspended" and len(result.suspended[0].payload) == LARGE + 1 and result.state == {"kept": "x" * 10}
        assert [len(w) for w in written] == [LARGE]
        result = await run.resume("z" * LARGE)
        assert (result.status, result.result) == ("success", [LARGE, LARGE + 1])
        failed = await noria.run(failing, 1)
        assert failed.status == "failed" and len(failed.error.message) == LARGE and failed.error.type == "ValueError"  # type: ignore[union-attr]
        async with asyncio.timeout(20):
            while await passing(noria):
                await asyncio.sleep(0.05)


async def test_equal_replies_at_once_do_not_take_each_others_parcel(noria: Noria, server_url: str) -> None:
    @step
    async def same(x: Any) -> Any:
        return "x" * 1_500_000

    flow = Workflow("equal").foreach(same, concurrency=6).map(lambda each: [len(x) for x in each]).commit()
    async with split(noria, server_url, flow):
        assert (await noria.run(flow, list(range(6)), timeout=60)).result == [1_500_000] * 6


async def test_a_handler_that_takes_no_parcels(noria: Noria, server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not serve `<subject>.parcel`: what fits into a message comes to it as ever, more fails and says why."""
    monkeypatch.setattr(elsewhere, "HANDLER_PATIENCE_SECONDS", 0.5)
    flow = Workflow("small").then(remote_step("plain", subject=f"{noria.namespace}.plain")).commit()
    client = await nats.connect(server_url)

    async def serve(msg: Any) -> None:
        call = json.loads(msg.data)
        await client.publish(msg.reply, json.dumps({"status": "success", "output": len(call["input"])}).encode())

    await client.subscribe(f"{noria.namespace}.plain", cb=serve)
    async with noria.worker(flow):
        assert (await noria.run(flow, "x" * 400_000)).result == 400_000
        result = await noria.run(flow, "x" * LARGE)
        error = result.error
        assert error is not None and error.type == "LimitExceeded" and result.steps["plain"].attempts == 1
        assert "max_payload of 1048576 bytes" in error.message and f"nobody serves {noria.namespace}.plain.parcel" in error.message
    await client.close()


async def test_parcels_by_hand(noria: Noria, server_url: str) -> None:
    """What docs/outside.md tells makers of handlers in other languages, with a plain client."""
    flow = Workflow("hands").then(remote_step("far")).commit()
    client = await nats.connect(server_url)
    stream = f"{noria.namespace.upper()}_BLOBS"

    async def serve(msg: Any) -> None:
        slip = json.loads(msg.data)
        name, count = slip["noria_blob"], int(slip["noria_blob"].rpartition("-")[2])
        blobs, chunks = f"{noria.namespace}.blob.{slip['root']}.{slip['run_id']}", []
        for n in range(count):
            chunk = await client.request(f"$JS.API.DIRECT.GET.{stream}.{blobs}.{name}.{n}", b"", timeout=5)
            chunks.append(chunk.data)
        call = json.loads(b"".join(chunks))
        assert call["reply_as"] == "parcel" and call["step"] == "far"
        reply = json.dumps({"status": "success", "output": call["input"][::-1]}).encode()
        parts = [reply[at : at + 500_000] for at in range(0, len(reply), 500_000)]
        name = f"call-{os.urandom(16).hex()}-{len(parts)}"
        for n, part in reversed(list(enumerate(parts))):
            stored = await client.request(f"{blobs}.{name}.{n}", part, timeout=5)
            assert "seq" in json.loads(stored.data)
        await client.publish(msg.reply, json.dumps({"noria_blob": name}).encode())

    await client.subscribe(f"{noria.namespace}.step.hands.far.parcel", cb=serve)
    async with noria.worker(flow):
        result = await noria.run(flow, "a" * LARGE + "b", timeout=30)
        assert result.status == "success" and result.result == "b" + "a" * LARGE
    await client.close()

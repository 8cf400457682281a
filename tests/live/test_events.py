"""on_event: workflows bound to streams and subjects of the user's own."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import nats
import pytest

from noria import Context, DefinitionError, Noria, NoriaError, Workflow, on_event, step
from noria.ids import event_run_id


@step
async def keep(x: Any, ctx: Context) -> Any:
    return {"input": x, "resource": ctx.resource_id}


def bound(id: str, *bindings: Any) -> Workflow:
    return Workflow(id, triggers=list(bindings)).then(keep).commit()


def event(id: str, data: Any = None, **more: Any) -> bytes:
    return json.dumps({"specversion": "1.0", "id": id, "source": "/shop", "type": "order.placed", "data": data, **more}).encode()


class Shop:
    """The user's side: a stream of orders, and plain subjects."""

    def __init__(self, client: Any, name: str) -> None:
        self.client, self.js, self.name, self.subject = client, client.jetstream(), name, name.lower()

    async def send(self, body: bytes, tail: str = "eu", headers: dict[str, str] | None = None) -> None:
        await self.js.publish(f"{self.subject}.{tail}", body, headers=headers)


@pytest.fixture
async def shop(server_url: str) -> AsyncIterator[Shop]:
    client = await nats.connect(server_url)
    made = Shop(client, f"S{uuid.uuid4().hex[:10]}")
    await made.js.add_stream(name=made.name, subjects=[f"{made.subject}.>"])
    yield made
    await made.js.delete_stream(made.name)
    await client.close()


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(15):
        while not (found := await condition()):
            await asyncio.sleep(0.05)
    return found


def ids(noria: Noria, count: int) -> Callable[[], Awaitable[list[str]]]:
    async def enough() -> list[str]:
        page = await noria.runs.list(status="success")
        return sorted(r.run_id for r in page.runs) if page.total >= count else []

    return enough


async def test_a_stream_of_the_users_starts_each_event_once(noria: Noria, server_url: str, shop: Shop) -> None:
    flow = bound("bound", on_event(on=f"{shop.subject}.>"))
    async with Noria.connect(server_url, namespace=noria.namespace) as other, noria.worker(flow), other.worker(flow):
        for _ in range(3):
            for n in range(20):
                await shop.send(event(f"e{n}", {"n": n}, resourceid="r1"))
        await until(ids(noria, 20))
        await asyncio.sleep(0.3)
        assert (await noria.runs.list()).total == 20
        record = await noria.runs.get(event_run_id("/shop", "e7"))
    assert record is not None and record.result == {"input": {"n": 7}, "resource": "r1"} and record.resource_id == "r1"


async def test_events_that_came_while_no_worker_was_there_are_not_lost(noria: Noria, shop: Shop) -> None:
    flow = bound("late", on_event(on=f"{shop.subject}.*", stream=shop.name))
    await shop.send(event("before", 0))
    async with noria.worker(flow):
        await shop.send(event("first", 1))
        await until(ids(noria, 1))
    await shop.send(event("meanwhile", 2))
    async with noria.worker(flow):
        found = await until(ids(noria, 2))
    assert found == sorted([event_run_id("/shop", "first"), event_run_id("/shop", "meanwhile")])  # none from before the binding


async def test_filters_when_and_input(noria: Noria, shop: Shop) -> None:
    async def dear(event: Any) -> bool:
        return event.data["price"] > 10 and event["data"]["price"] > 10 and event.subject is not None

    flow = bound(
        "picky",
        on_event(
            on=f"{shop.subject}.>", type="order.*", source="/shop", subject="eu/*", when=dear,
            input=lambda event: {"who": event["customer"], "kind": event.type, "n": event.get_data()["price"], "none": event.get("nope")},
        ),
    )  # fmt: skip
    async with noria.worker(flow):
        good = {"subject": "eu/1", "customer": "ada"}
        await shop.send(event("cheap", {"price": 1}, **good))
        await shop.send(event("elsewhere", {"price": 11}, **{**good, "subject": "us/1"}))
        await shop.send(event("no subject", {"price": 11}, customer="ada"))
        await shop.send(event("other type", {"price": 11}, **good, type="payment"))
        await shop.send(event("other source", {"price": 11}, **good, source="/shop/2"))
        await shop.send(event("yes", {"price": 11}, **good))
        (run,) = await until(ids(noria, 1))
        record = await noria.runs.get(run)
        assert await noria.broker.triggers.dead() == []
    assert run == event_run_id("/shop", "yes") and record is not None
    assert record.input == {"who": "ada", "kind": "order.placed", "n": 11, "none": None}


async def test_binary_mode_and_runid(noria: Noria, shop: Shop) -> None:
    async with noria.worker(bound("binary", on_event(on=f"{shop.subject}.>", type="order.placed"))):
        headers = {"Ce-Specversion": "1.0", "CE-ID": "1", "ce-source": "/sh%C3%B6p", "ce-type": "order.placed", "ce-runid": "mine"}
        headers["content-type"] = "application/json"
        await shop.send(b'{"n":1}', headers=headers)
        assert await until(ids(noria, 1)) == ["mine"]


async def test_every_event_of_a_batch(noria: Noria, shop: Shop) -> None:
    async with noria.worker(bound("batch", on_event(on=f"{shop.subject}.>", type="order.placed"))):
        events = [json.loads(event(f"e{n}", n, runid=f"r{n}", type="other" if n == 1 else "order.placed")) for n in range(4)]
        for _ in range(2):
            await shop.send(json.dumps(events).encode(), headers={"Content-Type": "application/cloudevents-batch+json"})
        assert await until(ids(noria, 3)) == ["r0", "r2", "r3"]


async def test_a_workflow_starts_at_the_end_of_another(noria: Noria) -> None:
    """Facts are CloudEvents on a stream like any other."""
    end = on_event(
        on=f"{noria.namespace}.run.first.*._", type="io.noria.workflow-finish.v1", when=lambda event: event.data["status"] == "success",
        input=lambda event: event.subject,
    )  # fmt: skip
    first = Workflow("first").then(keep).commit()
    async with noria.worker(first, bound("second", end)):
        await noria.run(first, 5, run_id="one")

        async def followed() -> Any:
            return (await noria.runs.list("second", status="success")).runs

        (run,) = await until(followed)
        record = await noria.runs.get(run.run_id, "second")
    assert record is not None and record.input == "one"


async def test_what_is_no_event_or_breaks_is_buried_with_the_reason(noria: Noria, shop: Shop) -> None:
    flow = bound("careful", on_event(on=f"{shop.subject}.>", when=lambda event: event.data["n"] > 0))
    async with noria.worker(flow):
        await shop.send(b"not json at all")
        await shop.send(event("broken", {"m": 1}))
        await shop.send(event("bad run id", {"n": 1}, runid="a.b"))
        await shop.send(event("good", {"n": 1}))
        await until(ids(noria, 1))

        async def three() -> Any:
            found = await noria.broker.triggers.dead()
            return found if len(found) == 3 else None

        letters = await until(three)
    reasons = " | ".join(sorted(letter.reason for letter in letters))
    assert "not a CloudEvent" in reasons and "KeyError: 'n'" in reasons and "'a.b'" in reasons
    assert {(letter.kind, letter.workflow) for letter in letters} == {("trigger", "careful")}


async def test_a_replayed_event_passes_its_binding_again(noria: Noria, shop: Shop) -> None:
    broken = [True]

    def input(event: Any) -> Any:
        if broken:
            raise RuntimeError("not ready")
        return {"doubled": event.data * 2}

    async with noria.worker(bound("again", on_event(on=f"{shop.subject}.>", input=input))):
        await shop.send(event("e", 21))

        async def dead() -> Any:
            return await noria.dead.list()

        (letter,) = await until(dead)
        broken.clear()
        await noria.dead.replay(letter.sequence)
        (run,) = await until(ids(noria, 1))
        record = await noria.runs.get(run)
    assert record is not None and record.input == {"doubled": 42} and "RuntimeError: not ready" in letter.reason


async def test_a_core_subject_is_shared_by_the_workers(noria: Noria, server_url: str, shop: Shop) -> None:
    subject = f"core.{uuid.uuid4().hex[:8]}"
    flow = bound("core", on_event(on=f"{subject}.*"))
    async with Noria.connect(server_url, namespace=noria.namespace) as other, noria.worker(flow), other.worker(flow):
        for n in range(30):
            await shop.client.publish(f"{subject}.x", event(f"e{n}", n))
        await until(ids(noria, 30))
        assert (await noria.runs.list()).total == 30


async def test_bindings_that_cannot_be(noria: Noria, shop: Shop) -> None:
    for on in ("", "a..b", "a b", ".a"):
        with pytest.raises(DefinitionError, match="on_event"):
            on_event(on)
    with pytest.raises(DefinitionError, match="type="):
        on_event("a", type="a*b")
    with pytest.raises(DefinitionError, match="triggers takes"):
        Workflow("w", triggers=["orders.>"])
    with pytest.raises(NoriaError, match="NOT_THERE"):
        async with noria.worker(bound("gone", on_event(on="a.b", stream="NOT_THERE"))):
            pass

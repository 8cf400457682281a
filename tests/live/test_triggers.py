"""CloudEvents that start runs."""

from __future__ import annotations

import asyncio
import json

import nats
from pydantic import BaseModel

from noria import Context, Noria, Workflow, step
from noria.ids import event_run_id


class Greeting(BaseModel):
    name: str


@step
async def greet(x: Greeting, ctx: Context) -> str:
    return f"hello {x.name} from {ctx.resource_id}"


flow = Workflow("greet", input=Greeting).then(greet).commit()


async def publish(url: str, subject: str, body: bytes, headers: dict[str, str] | None = None) -> None:
    client = await nats.connect(url)
    await client.jetstream().publish(subject, body, headers=headers)
    await client.close()


async def result_of(noria: Noria, run_id: str):
    return await noria.create_run(flow, run_id).result(timeout=10)


async def test_structured_mode_starts_a_run_once(noria: Noria, server_url: str) -> None:
    event = {"specversion": "1.0", "id": "e1", "source": "/shop", "type": "placed", "data": {"name": "ada"}, "resourceid": "r"}
    async with noria.worker(flow):
        for _ in range(3):
            headers = {"content-TYPE": "application/cloudevents+json; charset=utf-8"}
            await publish(server_url, f"{noria.namespace}.trigger.greet", json.dumps(event).encode(), headers)
        result = await result_of(noria, event_run_id("/shop", "e1"))
        await asyncio.sleep(0.2)
        assert (await noria.runs.list()).total == 1
    assert result.result == "hello ada from r"


async def test_binary_mode_with_percent_encoding(noria: Noria, server_url: str) -> None:
    headers = {"CE-specversion": "1.0", "ce-ID": "e2", "ce-source": "/caf%C3%A9", "ce-type": "placed", "ce-runid": "mine"}
    headers["Content-Type"] = "application/json"
    async with noria.worker(flow):
        await publish(server_url, f"{noria.namespace}.trigger.greet", b'{"name":"bob"}', headers)
        assert (await result_of(noria, "mine")).result == "hello bob from None"


async def test_what_cannot_start_a_run_is_buried_with_the_reason(noria: Noria, server_url: str) -> None:
    good = {"specversion": "1.0", "id": "e3", "source": "/s", "type": "t", "data": {"name": "x"}}
    async with noria.worker(flow):
        subject = f"{noria.namespace}.trigger"
        await publish(server_url, f"{subject}.greet", b"\xff\x00 not json")
        await publish(server_url, f"{subject}.greet", json.dumps({**good, "data": {"nome": 1}}).encode())
        await publish(server_url, f"{subject}.greet", json.dumps({"id": "1"}).encode())
        await publish(server_url, f"{subject}.nobody", json.dumps(good).encode())
        for _ in range(100):
            dead = await noria.broker.triggers.dead()
            if len(dead) == 4:
                break
            await asyncio.sleep(0.05)
        assert (await noria.runs.list()).total == 0
        assert (await noria.run(flow, {"name": "still alive"})).status == "success"
    reasons = sorted(letter.reason for letter in dead)
    assert len(dead) == 4 and any("name" in r and "Invalid input" in r for r in reasons)
    assert any("'nobody'" in r and "'greet'" in r for r in reasons) and sum("not a CloudEvent" in r for r in reasons) == 2
    assert b"\xff\x00 not json" in [letter.body for letter in dead]

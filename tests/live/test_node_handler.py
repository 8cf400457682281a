"""A step of a Python workflow served by Node.js, as in examples/node. Skipped only where node or npm is missing."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from examples.quote import quote

from noria import Noria
from noria.actor import elsewhere
from noria.ports import RunKey

NODE, NPM = shutil.which("node"), shutil.which("npm")
EXAMPLE = Path(__file__).parents[2] / "examples" / "node"
pytestmark = [
    pytest.mark.skipif(NODE is None or NPM is None, reason="NODE OR NPM IS MISSING: steps in another language are not tested"),
    pytest.mark.timeout(180),
]


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its package, from the registry."""
    folder = tmp_path_factory.mktemp("node")
    for path in EXAMPLE.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    installed = subprocess.run(
        [str(NPM), "install", "--no-audit", "--no-fund", "--no-package-lock"], cwd=folder, capture_output=True, text=True, timeout=150
    )
    assert installed.returncode == 0, installed.stderr
    return folder


def start(folder: Path, url: str, namespace: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([str(NODE), "handler.mjs", url, namespace], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "serving quote.price\n"
    return process


@pytest.fixture
def handler(noria: Noria, server_url: str, node_folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = start(node_folder, server_url, noria.namespace)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
async def worker(noria: Noria) -> AsyncIterator[Noria]:
    async with noria.worker(quote, grace=0):
        yield noria


async def begun(noria: Noria, run: str) -> None:
    """Until the handler has told that it works on the run."""
    async with asyncio.timeout(20):
        while not any(b"looked_up" in entry.body for entry in await noria.broker.log.read_live(RunKey("quote", run))):
            await asyncio.sleep(0.05)


async def test_a_step_in_node(worker: Noria, handler: Any) -> None:
    run = worker.create_run(quote, "r")
    stream = run.stream({"sku": "wheel", "quantity": 2})
    written = [e.data["output"] async for e in stream if e.type == "workflow-step-output"]
    result = await stream.result()
    assert result.status == "success" and result.result["to_pay"] == 240 and "quote:r" in result.result["key"]
    assert written == [{"looked_up": "wheel"}] and result.state == {"priced": True}


async def test_its_errors_retries_and_suspensions(worker: Noria, handler: Any) -> None:
    again = await worker.run(quote, {"sku": "bucket", "quantity": 3})
    assert again.result["to_pay"] == 45 and again.steps["price"].attempts == 2
    unknown = await worker.run(quote, {"sku": "boat"})
    assert unknown.error is not None and (unknown.error.type, unknown.error.message) == ("UnknownSku", "nobody sells boat")
    assert unknown.error.attributes["sku"] == "boat" and unknown.steps["price"].attempts == 1
    run = worker.create_run(quote)
    large = await run.start({"sku": "wheel", "quantity": 200})
    assert large.status == "suspended" and large.suspended[0].payload == {"reason": "a large order"} and large.suspended[0].labels == ("approve",)
    assert (await run.resume({"discount": 1000}, label="approve")).result["to_pay"] == 23000


async def test_cancellation_reaches_it_and_another_takes_over_when_it_dies(
    worker: Noria, handler: Any, server_url: str, node_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "CALL_HEARTBEAT_SECONDS", 0.7)
    run = worker.create_run(quote, "c")
    await run.start_async({"sku": "wheel", "seconds": 30})
    await begun(worker, "c")
    await run.cancel()
    assert await asyncio.wait_for(asyncio.to_thread(handler.stdout.readline), 15) == "cancelled\n"
    run = worker.create_run(quote, "d")
    await run.start_async({"sku": "wheel", "seconds": 3})
    await begun(worker, "d")
    handler.kill()
    second = start(node_folder, server_url, worker.namespace)
    try:
        result = await run.result(timeout=40)
        assert result.status == "success" and result.steps["price"].attempts == 1 and "quote:d" in result.result["key"]
    finally:
        second.kill()
        second.wait()


async def test_it_is_a_micro_service(worker: Noria, handler: Any, server_url: str) -> None:
    """What `nats service ls`, `info` and `stats` ask for."""
    assert (await worker.run(quote, {"sku": "wheel"})).status == "success"
    client = await nats.connect(server_url)
    try:
        assert json.loads((await client.request("$SRV.PING.quote-steps", timeout=5)).data)["name"] == "quote-steps"
        info = json.loads((await client.request("$SRV.INFO.quote-steps", timeout=5)).data)
        subject = f"{worker.namespace}.step.quote.price"
        assert [(e["name"], e["subject"], e["queue_group"]) for e in info["endpoints"]] == [
            ("quote-price", subject, "q"), ("quote-price-parcel", f"{subject}.parcel", "q"),
        ]  # fmt: skip
        assert info["endpoints"][0]["metadata"] == {"workflow": "quote", "step": "price"}
        stats = json.loads((await client.request("$SRV.STATS.quote-steps", timeout=5)).data)
        assert [e["num_requests"] for e in stats["endpoints"]] == [1, 0]
        by_hand = await client.request(subject, b'{"input": {"sku": "wheel", "quantity": 2}, "idempotency_key": "mine"}', timeout=5)
        again = await client.request(subject, b'{"input": {"sku": "wheel", "quantity": 2}, "idempotency_key": "mine"}', timeout=5)
        assert json.loads(by_hand.data)["output"]["total"] == 240 and again.data == by_hand.data, "the same key, the same quote"
        bad = await client.request(subject, b"{", timeout=5)
        assert bad.headers is not None and bad.headers["Nats-Service-Error-Code"] == "400"
    finally:
        await client.close()


async def test_large_values_go_by_reference(worker: Noria, handler: Any) -> None:
    note = "n" * 3_000_000
    result = await worker.run(quote, {"sku": "wheel", "note": note}, timeout=60)
    assert result.status == "success" and result.result["note"] == note and result.steps["price"].attempts == 1

"""docs/operating.md: every command of it, with the real nats CLI."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from noria import Context, Noria, Workflow, step
from noria.embedded import start_server

DOCUMENT = Path(__file__).parents[2] / "docs" / "operating.md"
LINES = [line for block in re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.S) for line in block.splitlines()]
COMMANDS = [line.partition("   # ")[0] for line in LINES]
NATS = next((p for p in (str(Path(sys.executable).parent / "nats"), shutil.which("nats") or "") if p and os.access(p, os.X_OK)), None)


@step
async def charge(order: dict[str, Any], ctx: Context) -> dict[str, Any]:
    await ctx.write("charging")
    return {"amount": order["quantity"] * 12.5}


@step
async def approve(receipt: dict[str, Any], ctx: Context) -> dict[str, Any]:
    if ctx.resume_data is None:
        ctx.suspend({"amount": receipt["amount"]})
    return {**receipt, "approved_by": ctx.resume_data["by"]}


order = Workflow("order").then(charge).sleep(lambda receipt: 3600 if receipt["amount"] > 100 else 0).then(approve).commit()

# a part of the command -> what its output holds
EXPECTED = {
    "req noria.trigger.order": '"stream":"NORIA_TRIGGERS"',
    "req noria.api.start": '"run_id":"r2"',
    "sub 'noria.run.order.r1.>'": "io.noria.workflow-step-suspended.v1",
    "sub 'noria.live.order.r1.>'": '"output":"charging"',
    "sub 'noria.run.order.>'": "Subscribing on noria.run.order.>",
    "sub 'noria.rest.*.*.failed'": "Subscribing on noria.rest.*.*.failed",
    "stream get NORIA_RUNS --last-for": "io.noria.workflow-step-suspended.v1",
    "kv get noria-runs order.r1": '"status":"suspended"',
    "req noria.api.get": '"suspend_payload":{"amount":50.0}',
    "req noria.api.list": '"total":2',
    "kv ls noria-runs": "order.r1",
    "kv get noria-workflows order": '"steps":["approve","charge"]',
    "req noria.api.resume": '"result":{"amount":50.0,"approved_by":"ada"}',
    "req noria.api.cancel": '"status":"canceled"',
    "consumer info NORIA_RUNS w-order": r"Unprocessed Messages: 0",
    "consumer report NORIA_RUNS": "w-order",
    "req noria.worker.order": "{",
    "service ls": "noria",
    "service stats noria": "resume",
    "sub 'noria.dead.>'": "Noria-Reason",
    "stream ls": "KV_noria-runs",
    "stream subjects NORIA_RUNS": "noria.timer.order.r9._.sleep-1",
    "backup account": "NORIA_RUNS",
    "backup restore account": 'Restored stream "NORIA_RUNS"',
}


def test_each_command_of_the_document_is_checked() -> None:
    matches = {c: [k for k in EXPECTED if c.startswith(f"nats {k}")] for c in COMMANDS}
    assert all(len(found) == 1 for found in matches.values()), matches
    assert {found[0] for found in matches.values()} == set(EXPECTED) and all("   # " in line for line in LINES)


class Cli:
    """The nats CLI in a folder of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        assert NATS is not None
        path = f"{Path(NATS).parent}{os.pathsep}{os.environ['PATH']}"
        known = {k: v for k, v in os.environ.items() if not k.startswith("NATS_")}
        self.environment = {**known, "NATS_URL": url, "XDG_CONFIG_HOME": str(folder / "config"), "PATH": path}
        self.folder = folder

    async def run(self, command: str) -> str:
        process = await asyncio.create_subprocess_shell(
            command, env=self.environment, cwd=self.folder, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0, f"{command}\n{out.decode()}"
        return out.decode()

    async def check(self, command: str) -> None:
        (part,) = [k for k in EXPECTED if command.startswith(f"nats {k}")]
        for _ in range(20):  # the record follows its run
            out = await self.run(command)
            if EXPECTED[part] in out or not command.startswith(("nats kv", "nats req noria.api.list", "nats stream", "nats sub")):
                break
            await asyncio.sleep(0.1)
        assert EXPECTED[part] in out, f"{command}\n{out}"


@pytest.mark.timeout(120)
async def test_every_command_does_what_the_document_says(tmp_path: Path) -> None:
    if NATS is None:
        warnings.warn("NO nats BINARY: docs/operating.md is NOT tested. go install github.com/nats-io/natscli/nats@v0.5.1", stacklevel=1)
        pytest.skip("no nats binary: go install github.com/nats-io/natscli/nats@v0.5.1")
    server = await start_server()
    cli, restore = Cli(server.url, tmp_path), COMMANDS[-1]
    try:
        async with Noria.connect(server.url) as noria:
            async with noria.worker(order):
                await noria.broker.triggers.bury("trigger", "order", b"garbage", {}, "not a CloudEvent")
                await noria.create_run(order, "r9").start_async({"quantity": 9})  # sleeps
                for command in COMMANDS[:-2]:
                    await cli.check(command)
                parked = noria.create_run(order, "r3")
                assert (await parked.start({"quantity": 2})).status == "suspended"
            before = json.loads(await cli.run("nats req '$JS.API.STREAM.NAMES' '' --raw"))["streams"]
            await cli.check(COMMANDS[-2])
            for name in before:
                await cli.run(f"nats stream rm {name} -f")
            await cli.check(restore)
        async with Noria.connect(server.url) as noria, noria.worker(order):
            assert (await noria.create_run(order, "r3").resume({"by": "bob"})).result == {"amount": 25.0, "approved_by": "bob"}
            assert [(await noria.runs.get(r)).status for r in ("r1", "r2")] == ["success", "canceled"]
    finally:
        await server.stop()

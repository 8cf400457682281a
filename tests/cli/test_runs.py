"""`noria runs` as an operator uses it: one run or many, asked on a terminal, with exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from noria import Context, Noria, Workflow, step

ROOT = Path(__file__).parents[2]
NORIA = [sys.executable, "-c", "from noria.cli.main import main; main()"]


class Approval(BaseModel):
    approved: bool
    by: str
    limit: int = 10
    note: str | None = None


@step(resume=Approval)
async def approve(x: int, ctx: Context) -> dict[str, Any]:
    return {"x": x, **ctx.resume_data.model_dump()} if ctx.resume_data is not None else ctx.suspend({"amount": x}, label="approval")


@step
async def finish(data: dict[str, Any]) -> dict[str, Any]:
    if data["x"] < 0:
        raise ValueError("negative")
    return data


flow = Workflow("approvals", input=int).then(Workflow("ask").then(approve)).then(finish).commit()
YES = '{"approved": true, "by": "me"}'


class Cli:
    """The command line on one namespace."""

    def __init__(self, noria: Noria) -> None:
        self.place = ("--server", noria.url, "--namespace", noria.namespace)

    async def __call__(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = [*NORIA, "runs", *args, *self.place]
        return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, cwd=ROOT, timeout=50, input="")

    async def on_a_terminal(self, *args: str, answers: str) -> tuple[int, str]:
        """(exit code, what was shown) with `answers` typed in."""
        ours, theirs = pty.openpty()
        pipes: Any = {"stdin": theirs, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([*NORIA, "runs", *args, *self.place], **pipes, cwd=ROOT, text=True)
        os.close(theirs)
        os.write(ours, answers.encode())
        shown, asked = await asyncio.to_thread(process.communicate, timeout=50)
        os.close(ours)
        return process.returncode, shown + asked


async def park(noria: Noria, *inputs: int) -> None:
    for n, x in enumerate(inputs):
        assert (await noria.run(flow, x, run_id=f"r{n}", timeout=20)).status == "suspended"


async def test_one_run_is_resumed_travelled_forked_and_watched(noria: Noria) -> None:
    cli = Cli(noria)
    async with noria.worker(flow, lease=5):
        await park(noria, 1)
        bad = await cli("resume", "r0", "--data", '{"approved": "what"}', "--json")
        assert bad.returncode == 2 and "approved" in bad.stderr and "by" in bad.stderr
        done = await cli("resume", "r0", "--step", "ask.approve", "--data", YES, "--json")
        assert done.returncode == 0 and json.loads(done.stdout)["result"] == {"x": 1, "approved": True, "by": "me", "limit": 10, "note": None}
        again = await cli("time-travel", "r0", "finish", "--input", '{"x": -1}', "--json")
        assert again.returncode == 1 and json.loads(again.stdout)["error"]["message"] == "negative"
        forked = await cli("fork", "r0", "finish", "--input", '{"x": 5}', "--run-id", "copy", "--json")
        assert forked.returncode == 0 and json.loads(forked.stdout)["run_id"] == "copy" and json.loads(forked.stdout)["result"] == {"x": 5}
        watched = await cli("watch", "r0", "--json")
        assert watched.returncode == 1 and json.loads(watched.stdout.splitlines()[-1])["data"]["status"] == "failed"
        assert (await cli("watch", "copy")).returncode == 0
        idle = await cli("restart", "r0")
        assert idle.returncode == 2 and "not active" in idle.stderr
        nowhere = await cli("time-travel", "r0", "nothing")
        assert nowhere.returncode == 2 and "finish" in nowhere.stderr


async def test_missing_data_is_asked_for_by_the_schema(noria: Noria) -> None:
    cli = Cli(noria)
    async with noria.worker(flow, lease=5):
        await park(noria, 1, 2)
        code, shown = await cli.on_a_terminal("resume", "r0", answers="y\nme\nmany\n7\n\n")
        assert code == 0 and "ask.approve waits" in shown and "not integer: many" in shown, shown
        record = await noria.runs.get("r0")
        assert record is not None and record.result == {"x": 1, "approved": True, "by": "me", "limit": 7, "note": None}
        unasked = await cli("resume", "r1")
        assert unasked.returncode == 2 and "approve" in unasked.stderr


async def test_many_runs_are_resumed_canceled_and_deleted(noria: Noria) -> None:
    cli = Cli(noria)
    async with noria.worker(flow, lease=5):
        await park(noria, *range(5), -1)
        assert (await cli("cancel")).returncode == 2
        both = await cli("delete", "r0", "--status", "success", "--yes")
        assert both.returncode == 2 and "--status and --since choose many runs" in " ".join(both.stderr.replace("│", " ").split())
        unsure = await cli("cancel", "--workflow", "approvals")
        assert unsure.returncode == 2 and "cancel 6 runs?" in unsure.stderr and "--yes" in unsure.stderr
        code, shown = await cli.on_a_terminal("cancel", "--status", "suspended", answers="n\n")
        assert code == 1 and "cancel 6 runs?" in shown and (await noria.runs.list(status="suspended")).total == 6
        assert (await cli("cancel", "r0", "--json")).stdout == '{"run_id": "r0", "status": "canceled"}\n'
        future = json.loads((await cli("delete", "--since", "2999-01-01", "--yes", "--json")).stdout)
        assert future == {"matched": 0, "done": 0, "runs": [], "failed": []}
        resumed = await cli("resume", "--workflow", "approvals", "--status", "suspended", "--data", YES, "--yes", "--json")
        told = json.loads(resumed.stdout)
        assert resumed.returncode == 1 and (told["matched"], told["done"]) == (5, 4) and told["failed"][0]["error"] == "negative"
        assert {r["run_id"]: r["status"] for r in told["runs"]} == {f"r{n}": "success" for n in range(1, 5)}
        done = await cli("delete", "--status", "success", "--yes")
        assert done.returncode == 0 and "delete: 4 of 4 runs" in done.stdout
        left = (await noria.runs.list()).runs
        assert {(r.run_id, r.status) for r in left} == {("r0", "canceled"), ("r5", "failed")}
        await noria.create_run(flow, "open" * 20).start(3, timeout=20)
        assert "open" * 20 in (await cli("list")).stdout  # whole: it is what the other commands take
        forced = json.loads((await cli("delete", "--workflow", "approvals", "--force", "--yes", "--json")).stdout)
        assert forced["done"] == 3 and (await noria.runs.list()).total == 0

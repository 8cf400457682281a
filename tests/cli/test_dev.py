"""`noria dev`, `noria schedules`, workers of one kind, and everything by the control API."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_cli import NORIA, ROOT, cli

pytestmark = pytest.mark.timeout(150)  # interpreters start slowly on a busy machine

FLOW = """
from noria import Cron, Workflow, step
@step
async def work(x: int) -> int:
    return x + {n}
flow = Workflow("grows", input=int, schedule=Cron("0 0 29 2 *", id="leap", input=1)).then(work).commit()
"""


class Running:
    """A command that goes on, and what it wrote so far."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self._log = process, log

    def wait_for(self, text: str, count: int = 1, seconds: float = 30) -> str:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            if self._log.read_text().count(text) >= count:
                return self._log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"no {text!r} in:\n{self._log.read_text()}")


@contextmanager
def running(log: Path, *args: str) -> Iterator[Running]:
    env = {k: v for k, v in os.environ.items() if k != "NATS_URL"}
    with log.open("w") as out:
        process = subprocess.Popen([*NORIA, *args], stdout=out, stderr=out, text=True, cwd=ROOT, env=env)
    try:
        yield Running(process, log)
        process.terminate()
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def place(url: str) -> tuple[str, ...]:
    return ("--server", url, "--namespace", f"cli{uuid.uuid4().hex[:8]}")


def load(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_dev_reloads_and_tells_what_happens(server_url: str, tmp_path: Path) -> None:
    flow, where = tmp_path / "flow.py", place(server_url)
    flow.write_text(FLOW.format(n=1))
    with running(tmp_path / "log", "dev", f"{flow}:flow", *where) as dev:
        dev.wait_for("hosting grows")
        assert load(cli("run", "grows", "--input", "1", "--run-id", "first", "--json", *where))["result"] == 2
        text = dev.wait_for("grows/first run finish success 2")
        assert "grows/first work result success 2" in text and "grows/first run start" in text
        flow.write_text("this is not python (")
        dev.wait_for("changed: flow.py")
        dev.wait_for("SyntaxError")
        flow.write_text(FLOW.format(n=10))
        dev.wait_for("hosting grows", 2)
        assert load(cli("run", "grows", "--input", "1", "--json", *where))["result"] == 11


def test_dev_has_a_server_of_its_own(tmp_path: Path) -> None:
    flow = tmp_path / "flow.py"
    flow.write_text(FLOW.format(n=1))
    with running(tmp_path / "log", "dev", f"{flow}:flow") as dev:
        text = dev.wait_for("hosting grows")
        url = next(word for word in text.split() if word.startswith("nats://")).rstrip(",")
        assert load(cli("run", "grows", "--input", "4", "--json", "--server", url))["result"] == 5


def test_schedules_and_everything_by_the_api(server_url: str, tmp_path: Path) -> None:
    flow, where = tmp_path / "flow.py", place(server_url)
    flow.write_text(FLOW.format(n=1))
    with running(tmp_path / "log", "worker", f"{flow}:flow", *where) as worker:
        worker.wait_for("hosting grows")
        (leap,) = load(cli("schedules", "list", "--json", *where))
        assert (leap["id"], leap["workflow_id"], leap["cron"], leap["paused"]) == ("leap", "grows", "0 0 29 2 *", False)
        assert leap["next"].startswith("20") and "leap" in cli("schedules", "list", *where).stdout
        assert load(cli("schedules", "pause", "leap", "--json", *where)) == {"id": "leap", "paused": True}
        assert "resumed" in cli("schedules", "resume", "leap", *where).stdout
        run_id = load(cli("--via", "api", "schedules", "run", "leap", "--json", *where))["run_id"]
        assert load(cli("--via", "api", "run", "grows", "--input", "5", "--run-id", "r", "--json", *where))["result"] == 6
        listed = load(cli("--via", "api", "runs", "list", "--json", *where))
        assert {r["run_id"] for r in listed["runs"]} == {"r", run_id}
        watched = cli("--via", "api", "runs", "watch", "r", "--json", *where).stdout.splitlines()
        assert [json.loads(line)["type"] for line in watched][-1] == "workflow-finish"
        assert cli("--via", "api", "run", "nope", *where).returncode == 2


def test_workers_of_one_kind(server_url: str, tmp_path: Path) -> None:
    flow, where = tmp_path / "flow.py", place(server_url)
    flow.write_text(FLOW.format(n=1))
    with running(tmp_path / "runs", "worker", "--runs-only", f"{flow}:flow", *where) as hosts:
        hosts.wait_for("hosting runs only of grows")
        with running(tmp_path / "steps", "worker", "--steps-only", f"{flow}:flow", *where) as handlers:
            handlers.wait_for("serving the steps of grows")
            assert load(cli("run", "grows", "--input", "1", "--json", *where))["result"] == 2
    assert cli("worker", "--runs-only", "--steps-only", f"{flow}:flow", *where).returncode == 2

"""The command line as a person uses it: exit codes, JSON, a server of one's own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from noria import Noria
from noria.ports import Trigger

ROOT = Path(__file__).parents[2]
NORIA = [sys.executable, "-c", "from noria.cli.main import main; main()"]
FLOW = """
from noria import Context, Tripwire, Workflow, step
@step
async def guard(x: int) -> None:
    raise Tripwire("not [so]")
@step
async def ask(x: int, ctx: Context) -> int:
    if x < 0:
        raise ValueError("negative")
    return x if ctx.resume_data is None and x else ctx.suspend({"need": "a number"}) if ctx.resume_data is None else ctx.resume_data
flow = Workflow("asks", input=int).then(ask).commit()
trips = Workflow("trips").then(guard).commit()
"""


def cli(*args: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "NATS_URL"}
    return subprocess.run([*NORIA, *args], capture_output=True, text=True, cwd=ROOT, timeout=60, input=input, env=env)


def together(*commands: tuple[str, ...]) -> list[subprocess.CompletedProcess[str]]:
    """Commands that do not depend on each other, at once."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(lambda words: cli(*words), commands))


def test_run_succeeds_with_one_json_document() -> None:
    done = cli("run", "examples/order.py:order", "--input", "-", "--json", input='{"sku": "wheel"}')
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"]["tries"] == 1 and done.stderr == ""
    watched = cli("run", "examples/order.py:order", "--input", '{"sku": "wheel"}', "--json", "--watch")
    assert "reserve" in watched.stderr and json.loads(watched.stdout)["status"] == "success"


def test_run_shows_progress_to_people() -> None:
    done = cli("run", "examples/order.py:order", "--input", '{"sku": "wheel"}')
    assert done.returncode == 0 and "reserve" in done.stderr and "Thank you" in done.stdout


def test_exit_codes(tmp_path: Path) -> None:
    flow = tmp_path / "flow.py"
    flow.write_text(FLOW)
    failed, bad, missing, nobody, tripped, waiting = together(
        ("run", "examples/order.py:order", "--input", '{"sku": "sail"}', "--json"),
        ("run", "examples/order.py:order", "--input", '{"quantity": 2}'),
        ("run", "examples/order.py:nothing"),
        ("runs", "list", "--server", "nats://127.0.0.1:1"),
        ("run", f"{flow}:trips", "--input", "1"),
        ("run", f"{flow}:flow", "--input", "0", "--json"),
    )
    assert failed.returncode == 1
    assert bad.returncode == 2 and "sku" in bad.stderr
    assert missing.returncode == 2 and "'order'" in missing.stderr
    vague = cli("run", "examples/order.py")
    assert vague.returncode == 2 and "give examples/order.py:ATTR; it has 'order'" in vague.stderr
    assert nobody.returncode == 3 and "127.0.0.1:1: [Errno " in nobody.stderr
    assert tripped.returncode == 1 and "guard: not [so]" in tripped.stdout, tripped.stdout
    assert waiting.returncode == 4 and json.loads(waiting.stdout)["suspended"][0]["payload"] == {"need": "a number"}
    assert f"noria dev {flow}:flow keeps one to resume on" in waiting.stderr


def test_it_says_which_version_it_is() -> None:
    said = cli("--version")
    assert said.returncode == 0 and said.stdout == f"noria {version('noria')}\n"


def test_a_file_that_does_not_import_is_one_line_and_usage(tmp_path: Path) -> None:
    cases = {"raise RuntimeError('boom')": "RuntimeError: boom", "def (": "SyntaxError", "import not_there": "No module named"}
    broken = [tmp_path / f"broken{n}.py" for n in range(len(cases))]
    for path, text in zip(broken, cases, strict=True):
        path.write_text(text)
    for done, said in zip(together(*(("run", f"{path}:flow", "--json") for path in broken)), cases.values(), strict=True):
        assert done.returncode == 2 and done.stdout == "" and said in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_brackets_in_an_error_are_kept() -> None:
    done = cli("run", "[/nope] list[int].py:flow")
    assert done.returncode == 2 and "[/nope] list[int].py" in done.stderr


def test_operating_on_a_server(server_url: str, tmp_path: Path) -> None:
    flow = tmp_path / "flow.py"
    flow.write_text(FLOW)
    place = ("--server", server_url, "--namespace", f"cli{uuid.uuid4().hex[:8]}")
    assert "create" in cli("infra", "plan", *place).stdout
    assert cli("infra", "apply", *place).returncode == 0
    assert json.loads(cli("infra", "plan", "--json", *place).stdout) == []
    assert cli("run", f"{flow}:flow", "--input", "0", "--run-id", "r1", *place).returncode == 4
    listed, later, earlier, shown, known, graph, drawn, own, unknown = together(
        ("runs", "list", "--json", *place),
        ("runs", "list", "--json", "--since", "2999-01-01", *place),
        ("runs", "list", "--json", "--until", "2999-01-01", *place),
        ("runs", "show", "r1", "--json", *place),
        ("workflows", "list", *place),
        ("workflows", "show", "asks", "--json", *place),
        ("workflows", "graph", "asks", *place),
        ("workflows", "graph", f"{flow}:flow"),
        ("workflows", "graph", "nothing", *place),
    )
    assert [(r["run_id"], r["status"]) for r in json.loads(listed.stdout)["runs"]] == [("r1", "suspended")]
    assert json.loads(later.stdout)["total"] == 0 and json.loads(earlier.stdout)["total"] == 1
    assert json.loads(shown.stdout)["steps"]["ask"]["status"] == "suspended"
    assert "asks" in known.stdout and json.loads(graph.stdout)["graph"]["id"] == "asks"
    assert drawn.stdout == own.stdout != ""
    assert unknown.returncode == 2 and "noria workflows list" in unknown.stderr
    worker = subprocess.Popen([*NORIA, "worker", f"{flow}:flow", *place], stderr=subprocess.PIPE, text=True)
    try:
        assert worker.stderr is not None and "hosting asks" in worker.stderr.readline()
        resumed = cli("runs", "resume", "r1", "--data", "5", "--json", *place)
        assert resumed.returncode == 0 and json.loads(resumed.stdout)["result"] == 5
        doctor = cli("doctor", *place)
        assert doctor.returncode == 0 and "workflow asks: hosted" in doctor.stdout, doctor.stdout
    finally:
        worker.terminate()
    assert worker.wait(15) == 0
    watched = cli("runs", "watch", "r1", "--json", *place).stdout.splitlines()
    assert [json.loads(line)["type"] for line in watched][-1] == "workflow-finish"
    assert cli("runs", "delete", "r1", *place).returncode == 0
    assert cli("runs", "show", "r1", *place).returncode == 2


def test_a_graph_needs_no_server() -> None:
    assert cli("workflows", "graph", "examples/order.py:order").stdout.startswith("flowchart TD")


async def test_dead_letters_are_listed_shown_and_replayed(noria: Noria, server_url: str, tmp_path: Path) -> None:
    await noria.broker.provision()
    event = json.dumps({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"sku": "wheel"}}).encode()
    await noria.broker.triggers.bury("trigger", "order", event, {"ce-x": "[b]ü", "nats-msg-id": "seen"}, "no [red]workflow[/red]")
    await noria.broker.triggers.bury("command", "order", b"\xff\x00", {}, "not a command")
    where = ("--server", server_url, "--namespace", noria.namespace)

    async def ask(*args: str) -> Any:
        done = await asyncio.to_thread(cli, "dead", *args, *where, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    letters = await ask("list")
    assert [(each["kind"], each["workflow"], each["reason"]) for each in letters] == [
        ("trigger", "order", "no [red]workflow[/red]"), ("command", "order", "not a command"),
    ]  # fmt: skip
    assert await ask("list", "--kind", "trigger", "--limit", "1") == letters[:1]
    assert await ask("list", "--after", str(letters[0]["sequence"])) == letters[1:]
    shown = await ask("show", str(letters[0]["sequence"]))
    assert json.loads(shown["body"])["data"] == {"sku": "wheel"} and shown["headers"]["ce-x"] == "[b]ü"
    assert (await ask("show", str(letters[1]["sequence"])))["body_base64"] == "/wA="
    people = await asyncio.to_thread(cli, "dead", "list", *where)
    assert people.returncode == 0 and "[red]" in people.stdout
    assert await ask("replay", str(letters[0]["sequence"])) == [{"sequence": letters[0]["sequence"], "run_id": None}]
    came: list[Trigger] = []

    async def take(trigger: Trigger) -> None:
        came.append(trigger)
        trigger.ack()

    receiver = await noria.broker.triggers.receive(take)
    async with asyncio.timeout(5):
        while not came:
            await asyncio.sleep(0.01)
    await receiver.close()
    assert (came[0].body, came[0].headers) == (event, {"ce-x": "[b]ü"})
    refused = await asyncio.to_thread(cli, "dead", "replay", str(letters[1]["sequence"]), *where)
    assert refused.returncode == 2 and "cannot be replayed" in refused.stderr
    unknown = await asyncio.to_thread(cli, "dead", "show", "999", *where)
    assert unknown.returncode == 2 and "noria dead list" in unknown.stderr

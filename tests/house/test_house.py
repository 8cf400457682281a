"""The house rules that a tool can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import noria

ROOT = Path(__file__).parents[2]
ALLOWED = {"pyproject.toml", "actors", "schemas", "infra", "tests", "justfile", "README.md", "LICENSE", "docs", "examples"}
PUBLIC = [
    "AmbiguousResume", "BrokerUnavailable", "Context", "Cron", "DefinitionError", "DuplicateStep",
    "EmptyWorkflow", "ErrorInfo", "GraphMismatch", "InvalidInput", "NoWorker", "NonRetryable", "Noria",
    "NoriaError", "Retry", "Run", "RunAlreadyStarted", "RunCancelled", "RunEvent", "RunFailed", "RunNotActive",
    "RunNotFound", "RunNotSuspended", "RunPage", "RunRecord", "RunResult", "RunStillActive", "RunStream",
    "RunSummary", "RunSuspended", "RunTripped", "Step", "StepNotFound", "StepNotSuspended", "StepResult",
    "StepTimeout", "Suspension", "Tripwire", "TripwireInfo", "Workflow", "WorkflowNotCommitted",
    "WorkflowNotFound", "computed", "from_context", "from_input", "from_state", "from_step", "on_event",
    "remote_step", "step", "template", "value",
]  # fmt: skip


LATER = {  # what a worker can start without: each costs milliseconds, and a dead worker's runs wait for the next one
    "aiohttp", "cloudevents", "cryptography", "dateutil", "jsonschema", "noria.cli", "noria.contract.control", "noria.contract.export",
    "noria.embedded", "noria.telemetry.observer", "noria.testing", "opentelemetry", "rich", "typer", "watchfiles",
}  # fmt: skip


def tracked() -> list[Path]:
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [ROOT / name for name in names if name and (ROOT / name).exists()]


def test_the_top_level_is_as_agreed() -> None:
    tops = {p.relative_to(ROOT).parts[0] for p in tracked()}
    assert {t for t in tops if not t.startswith(".")} <= ALLOWED


def test_the_door_lists_what_it_opens_to() -> None:
    assert sorted(noria.__all__, key=str.lower) == sorted(PUBLIC, key=str.lower)
    assert all(hasattr(noria, name) for name in noria.__all__)


def test_the_door_opens_without_what_a_worker_can_start_without() -> None:
    opened = subprocess.run([sys.executable, "-c", "import noria, sys; print(*sys.modules)"], capture_output=True, text=True, check=True)
    assert "noria.worker" in opened.stdout.split()
    assert not LATER & set(opened.stdout.split())


def test_no_lock_files_and_no_download_addresses() -> None:
    hosts = re.compile(r"https?://(?!127\.0\.0\.1|localhost|www\.apache\.org)[^\s\"')]*(?:pypi|pythonhosted|npmjs|crates|proxy)", re.I)
    for path in tracked():
        assert path.name not in ("uv.lock", "poetry.lock", "pdm.lock", "package-lock.json")
        if path.suffix in (".py", ".toml", ".md", ".txt", "") and path.is_file():
            assert not hosts.search(path.read_text(encoding="utf-8", errors="ignore")), path


def test_every_module_says_what_it_is_and_fits_in_the_head() -> None:
    for path in (ROOT / "actors").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), path
        assert text.count("\n") <= 400, f"{path} grew past what fits in the head"


def test_only_the_clock_reads_the_clock() -> None:
    for path in (ROOT / "actors").rglob("*.py"):
        if path.name != "clock.py":
            assert not re.search(r"\btime\.(time|monotonic)\(|datetime\.now\(", path.read_text(encoding="utf-8")), path


def test_only_chance_takes_chances() -> None:
    for path in (ROOT / "actors").rglob("*.py"):
        if path.name not in ("chance.py", "embedded.py") and "testing" not in path.parts:
            assert not re.search(r"\brandom\.|\bos\.urandom\(|\buuid\.", path.read_text(encoding="utf-8")), path

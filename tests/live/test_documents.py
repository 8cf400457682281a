"""Every Python block of README and docs runs, and prints what its comments say."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import subprocess
import sys
import types
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import drop

from noria import Noria

ROOT = Path(__file__).parents[2]
PAGES = sorted(p.name for p in (ROOT / "docs").glob("*.md"))
EXPECTED = re.compile(r"^\s+# (.*)$|print\(.*\)\s+# (.*)$", re.M)


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def told(block: str) -> list[str]:
    """What a block says that it prints: behind a print, or in lines of their own below it."""
    return [(alone or behind).strip() for alone, behind in EXPECTED.findall(block)]


@pytest.mark.parametrize("page", PAGES)
async def test_a_page(page: str, server_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = types.ModuleType("page")
    sys.modules[module.__name__] = module  # annotations are looked up in a function's module
    names: dict[str, Any] = vars(module)
    exec("from noria import *", names)
    try:
        async with Noria.connect(server_url, namespace=f"t{uuid.uuid4().hex[:12]}") as names["noria"]:
            for block in blocks(ROOT / "docs" / page):
                code = compile(block, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                running = eval(code, names)
                if inspect.isawaitable(running):
                    await running
                assert capsys.readouterr().out.splitlines() == told(block), block
            await drop(names["noria"])
        for test in [value for name, value in names.items() if name.startswith("test_")]:
            await asyncio.to_thread(asyncio.run, test())  # as pytest would: a loop of its own, and its clock is virtual
    finally:
        del sys.modules[module.__name__]


def test_the_readme_is_a_program(tmp_path: Path) -> None:
    program = "".join(blocks(ROOT / "README.md"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == told(program) != []


def test_every_path_that_a_page_names_is_there() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"`((?:docs|tests|examples|infra|schemas|actors)/[\w./-]*)`", text)
        named += [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
        for path in named:
            assert (ROOT / path).exists() or (page.parent / path).exists(), f"{page.name}: {path}"
        for command in re.findall(r"`just ([a-z][\w-]*)", text):
            assert re.search(rf"^{command}( |:|\*)", (ROOT / "justfile").read_text(), re.M), f"{page.name}: just {command}"

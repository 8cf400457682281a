"""`run`: one workflow, one worker, one result. The server and the namespace come from tests/conftest.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from noria import Noria, RunResult, Workflow

Run = Callable[..., Awaitable[RunResult]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        mark = item.get_closest_marker("not_applicable")
        if mark is not None:
            number, reason = mark.args
            item.add_marker(pytest.mark.skip(reason=f"difference {number}: {reason}"))


@pytest.fixture
def run(noria: Noria) -> Run:
    async def run(workflow: Workflow, input: Any = None, **start_options: Any) -> RunResult:
        async with noria.worker(workflow, lease=5):
            return await noria.run(workflow, input, **{"timeout": 20, **start_options})

    return run


@pytest.fixture
def calls() -> Counter[str]:
    """How often each step was called, by name."""
    return Counter()

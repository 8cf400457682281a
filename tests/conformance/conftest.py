"""`run`: one workflow, one worker, one result. The server and the namespace come from tests/conftest.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from noria import Noria, RunResult, Workflow
from noria.client.run import Run as Handle

Run = Callable[..., Awaitable[RunResult]]
Host = Callable[..., Awaitable[Handle]]
Lag = Callable[[], float]


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
async def host(noria: Noria) -> AsyncIterator[Host]:
    """host(workflow, run_id=None, resource_id=None): a handle of a new run, of a workflow that a worker hosts."""
    async with AsyncExitStack() as workers:
        hosted: set[str] = set()

        async def host(workflow: Workflow, run_id: str | None = None, resource_id: str | None = None) -> Handle:
            if workflow.id not in hosted:
                await workers.enter_async_context(noria.worker(workflow, lease=5))
                hosted.add(workflow.id)
            return noria.create_run(workflow, run_id, resource_id)

        yield host


@pytest.fixture
def calls() -> Counter[str]:
    """How often each step was called, by name."""
    return Counter()

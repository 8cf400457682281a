"""Fixtures for tests of workflows; they need a plugin that runs async fixtures, such as pytest-asyncio in mode "auto".

`simulated_noria`: a client on a simulated broker, in virtual time: `async with simulated_noria.worker(order): …`.
`crash_everywhere`: the function of `noria.testing`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from noria.client.noria import Noria


@pytest.fixture
async def simulated_noria() -> AsyncGenerator[Noria]:
    """A client on a broker in memory. Time is virtual in the test: an hour's sleep takes none."""
    from noria.testing.simulated import simulated

    async with simulated() as noria:
        yield noria


@pytest.fixture
def crash_everywhere() -> Callable[..., Any]:
    """Runs a workflow with its worker killed at every append: see `noria.testing.crashes`."""
    from noria.testing.crashes import crash_everywhere

    return crash_everywhere

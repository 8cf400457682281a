"""A batch of random graphs at once: each as a workflow of its own, with chances of its own."""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from noria import Noria, Workflow
from tests.conftest import drop
from tests.properties.graphs import make_flow, named
from tests.properties.interpreter import Graph

Take = Callable[[Noria, Workflow, Graph, random.Random], Coroutine[Any, Any, None]]


async def take_each(server_url: str, batch: list[Graph], seed: int, take: Take, workers: int = 1) -> None:
    """`take` every graph's workflow, named as it is made, beside so many workers that host them all."""
    specs, chance = [named(graph, itertools.count()) for graph in batch], random.Random(seed)
    flows = [make_flow(f"w{n}", spec).commit() for n, spec in enumerate(specs)]
    async with Noria.connect(server_url, namespace=f"p{uuid.uuid4().hex[:12]}") as noria:
        async with AsyncExitStack() as hosts:
            for _ in range(workers):
                await hosts.enter_async_context(noria.worker(*flows))
            await asyncio.gather(*(take(noria, flow, spec, random.Random(chance.random())) for flow, spec in zip(flows, specs, strict=True)))
        await drop(noria)

"""One process that hosts runs: provisions, registers its workflows, receives, and drains when it leaves."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from noria.actor.host import Host
from noria.actor.retention import sweep_for_ever
from noria.errors import DefinitionError
from noria.service.steps import StepService
from noria.triggers.ingress import Ingress
from noria.triggers.schedules import declare, keep_declared
from noria.workflow.builder import Workflow
from noria.workflow.catalogue import describe_within

if TYPE_CHECKING:
    from noria.client.noria import Noria


def committed(workflows: Iterable[Workflow]) -> list[Workflow]:
    """Each workflow once, committed. Raises DefinitionError when two of them share an id."""
    found: dict[str, Workflow] = {}
    for workflow in workflows:
        if not isinstance(cast(Any, workflow), Workflow):
            raise DefinitionError(f"a worker takes workflows one by one, worker(order, invoice), not {workflow!r}")
        if workflow.id in found and found[workflow.id] is not workflow:
            raise DefinitionError(f"two workflows have the id {workflow.id!r}: clone one under another id")
        found[workflow.id] = workflow if workflow.committed else workflow.commit()
    return list(found.values())


class Worker:
    """Async context manager: once entered, everything is provisioned and ready. Leaving drains."""

    def __init__(
        self, client: Noria, workflows: Iterable[Workflow], *, concurrency: int = 100, steps: bool = True, runs: bool = True,
        lease: float = 30.0, grace: float = 10.0,
    ) -> None:  # fmt: skip
        if lease <= 0 or concurrency < 1 or grace < 0:
            raise DefinitionError("a worker needs lease > 0, concurrency >= 1 and grace >= 0")
        self.client, self.workflows, self.runs, self.steps = client, committed(workflows), runs, steps
        self.host = Host(client.broker, client, self.workflows, concurrency, lease, grace, client.observer, steps)
        self._steps = StepService(client, self.workflows, concurrency)
        self._grace = grace
        self._ingress = Ingress(client, {w.id: w for w in self.workflows})
        self._stop_control: Callable[[float], Awaitable[None]] | None = None
        self._keepers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Worker:
        await self.client.broker.provision()
        self.client.registry.update({workflow.id: workflow for workflow in self.workflows})
        if self.runs:
            await self.host.open()  # first: while it makes sure that a dead host is dead, all the rest is made ready
        try:
            await self._make_ready()
        except BaseException:
            await self._close()
            raise
        gc.freeze()  # what is loaded by now stays: collections look at runs only, which leave no cycles
        self.client.workers.add(self)
        return self

    async def _make_ready(self) -> None:
        broker = self.client.broker
        await asyncio.gather(*(broker.catalogue.put(workflow.id, describe_within(workflow, broker.inline_bytes)) for workflow in self.workflows))
        if self.steps:
            await self._steps.open()
        if self.runs:
            from noria.service.control import serve_control  # after the host: its documents take their time to define

            await declare(self.client, self.workflows, self.host.peers)
            await self._ingress.open()
            self._stop_control = await serve_control(self.client)
            self._keepers = [
                asyncio.create_task(sweep_for_ever(broker, self.workflows)),
                asyncio.create_task(keep_declared(self.client, self.workflows, self.host.peers)),
            ]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.workers.discard(self)
        gc.unfreeze()
        await self._close()

    async def _close(self) -> None:
        """Stop what was opened."""
        for keeper in self._keepers:
            keeper.cancel()
        if self._stop_control is not None:
            await self._stop_control(0)
        await self._ingress.close()
        ends = [self.host.close()] if self.runs else []
        if self.steps:
            ends.append(self._steps.close(self._grace))
        await asyncio.shield(asyncio.gather(*ends))

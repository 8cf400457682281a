"""A worker in this process that can die as a process does: nothing is handed back, nothing is said."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from noria import Context, Noria, Step, Workflow, step


class Doomed:
    """Async context manager: a worker on a connection of its own."""

    def __init__(self, noria: Noria, *flows: Workflow, lease: float = 1.0) -> None:
        self._opening, self._flows, self._lease = Noria.connect(noria.url, namespace=noria.namespace), flows, lease

    async def __aenter__(self) -> Doomed:
        self.noria = await self._opening.__aenter__()
        self.worker = self.noria.worker(*self._flows, lease=self._lease)
        await self.worker.__aenter__()
        return self

    async def die(self) -> None:
        host = self.worker.host
        host._closing = True
        tasks = [*host._tasks, *([host._renewer] if host._renewer is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.noria.close()

    async def __aexit__(self, *_: object) -> None:
        if not self.noria.broker.connection.client.is_closed:
            await self.die()


class Trap:
    """Steps that count their calls; a trapped one hangs in its first life, so that its host can be killed inside it."""

    def __init__(self) -> None:
        self.calls, self.inputs, self.reached, self.sprung = Counter[str](), dict[str, list[Any]](), asyncio.Event(), False

    def note(self, name: str, x: Any) -> None:
        self.calls[name] += 1
        self.inputs.setdefault(name, []).append(x)

    def step(self, id: str, *, trapped: Any = False, **options: Any) -> Step:
        """Adds one. `trapped`: whether it hangs, or for which input."""

        async def work(x: Any, ctx: Context) -> Any:
            self.note(id, x)
            if not self.sprung and (trapped(x) if callable(trapped) else trapped):
                self.reached.set()
                await asyncio.Event().wait()
            ctx.set_state(**{id: x})
            return x + 1 if isinstance(x, int) else x

        return step(work, id=id, **options)

    async def crash(self, noria: Noria, flow: Workflow, input: Any, **options: Any):
        """Start it, kill its host inside the trapped step; the run."""
        run = noria.create_run(flow)
        async with Doomed(noria, flow) as worker:
            await run.start_async(input, **options)
            await asyncio.wait_for(self.reached.wait(), 10)
            await asyncio.sleep(0.05)
            await worker.die()
        self.sprung = True
        self.first = Counter(self.calls)
        self.calls.clear()
        return run

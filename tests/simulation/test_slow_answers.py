"""What comes back sooner than the answer to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest

from noria import Context, Noria, Retry, Workflow, step
from noria.testing.loop import Process, VirtualLoop, current_process, run
from noria.testing.memory import MemoryBroker
from noria.testing.server import Server
from noria.testing.wire import Wire

T = TypeVar("T")
PAUSE, LATE = 60.0, 100.0


class LateWire(Wire):
    """The answer to a timer comes when the timer has long been due; the process dies with the next fact that it stores."""

    is_late = False

    def request(self, name: str, operation: Callable[[], T]) -> asyncio.Future[T]:
        answer = super().request(name, operation)
        if self.is_late and name == "run append":
            answer.add_done_callback(lambda _: self.die())
        if name != "timer set":
            return answer
        self.is_late = True
        late: asyncio.Future[T] = self.loop.create_future()
        answer.add_done_callback(lambda done: self.loop.call_later(LATE, late.set_result, done.result()))
        return late

    def die(self) -> None:
        assert isinstance(self.loop, VirtualLoop)
        self.loop.kill(current_process())
        self.cut()


@pytest.mark.parametrize("kind", ["retry", "sleep"])
def test_a_timer_that_is_due_before_the_run_waits_is_not_lost_with_its_host(kind: str) -> None:
    async def body(x: int, ctx: Context) -> int:
        if kind == "retry" and ctx.attempt == 0:
            raise OSError("the first time it fails")
        return x + 1

    flow = Workflow("w").sleep(PAUSE) if kind == "sleep" else Workflow("w")
    flow = flow.then(step(body, id="s", retry=Retry(attempts=1, delay=PAUSE))).commit()

    async def main(loop: VirtualLoop) -> None:
        server, first = Server(), Process("first")

        async def work(wire: type[Wire]) -> None:
            async with Noria(MemoryBroker(server, "noria", wire())).worker(flow, lease=5.0):
                await asyncio.Future[None]()

        loop.spawn(first, work(LateWire))
        running = asyncio.ensure_future(Noria(MemoryBroker(server, "noria")).create_run(flow, "r").start(1))
        await asyncio.sleep(LATE + 10)
        assert first.killed
        loop.spawn(Process("second"), work(Wire))
        result = await asyncio.wait_for(running, 10 * LATE)
        assert (result.status, result.result) == ("success", 2)

    run(main, 0)

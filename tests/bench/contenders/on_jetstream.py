"""The floor: one awaited `js.publish` of nats-py a step, and nothing else: no consumer, no lease, no state."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from typing import Any

import nats
from shared import FLIGHT2, ITEMS3, RUNS1, RUNS2, STEPS1, STEPS2, STEPS4, WARM1, emit, growth, large, latency, small
from uvloop import run

from noria.embedded import start_server


class Floor:
    """A stream beside Noria's own."""

    def __init__(self, client: Any) -> None:
        self.client, self.stream, self._names = client, client.jetstream(), itertools.count()

    @classmethod
    async def on(cls, url: str) -> Floor:
        floor = cls(await nats.connect(url))
        await floor.stream.add_stream(name="FLOOR", subjects=["floor.>"])
        return floor

    async def sequence(self, steps: int) -> None:
        """What a run of no-op steps cannot do without."""
        name = f"floor.{next(self._names)}"
        for i in range(steps):
            await self.stream.publish(name, json.dumps(small(i)).encode())

    async def many(self) -> float:
        """Appends per second of W2."""
        limit = asyncio.Semaphore(FLIGHT2)

        async def one() -> None:
            async with limit:
                await self.sequence(STEPS2)

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(RUNS2)))
        return RUNS2 * STEPS2 / (time.perf_counter() - began)

    async def fan(self) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(self.stream.publish("floor.fan", json.dumps(small(i)).encode(), timeout=60) for i in range(ITEMS3)))
        return time.perf_counter() - began


async def main(workload: str) -> None:
    server = await start_server()
    try:
        floor = await Floor.on(server.url)
        for _ in range(WARM1):
            await floor.sequence(STEPS1)
        match workload:
            case "W1":
                spent = []
                for _ in range(RUNS1):
                    began = time.perf_counter()
                    await floor.sequence(STEPS1)
                    spent.append(time.perf_counter() - began)
                emit("W1", **latency(spent))
            case "W2":
                emit("W2", steps_per_s=await floor.many())
            case "W3":
                emit("W3", seconds=await floor.fan())
            case "W4":
                stamps = [time.perf_counter()]
                for i in range(STEPS4):
                    await floor.stream.publish("floor.grow", json.dumps(large(i)).encode())
                    stamps.append(time.perf_counter())
                info = await floor.stream.stream_info("FLOOR", subjects_filter="floor.grow")
                emit("W4", last_to_first=growth(stamps), bytes_per_step=info.state.bytes / info.state.messages)
            case _:
                sys.exit(f"the floor has no {workload}")
        await floor.client.close()
    finally:
        await server.stop()


if __name__ == "__main__":
    run(main(sys.argv[1]))

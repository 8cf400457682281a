"""The floor: one awaited `js.publish` of nats-py a step, and nothing else: no consumer, no lease, no state."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from typing import Any

import nats
import shared
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
            await self.stream.publish(name, json.dumps(shared.small(i)).encode())

    async def many(self) -> float:
        """Appends per second of W2."""
        limit = asyncio.Semaphore(shared.FLIGHT2)

        async def one() -> None:
            async with limit:
                await self.sequence(shared.STEPS2)

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(shared.RUNS2)))
        return shared.RUNS2 * shared.STEPS2 / (time.perf_counter() - began)

    async def fan(self) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(self.stream.publish("floor.fan", json.dumps(shared.small(i)).encode(), timeout=60) for i in range(shared.ITEMS3)))
        return time.perf_counter() - began


async def main(workload: str) -> None:
    server = await start_server()
    try:
        floor = await Floor.on(server.url)
        for _ in range(shared.WARM1):
            await floor.sequence(shared.STEPS1)
        match workload:
            case "W1":
                spent = []
                for _ in range(shared.RUNS1):
                    began = time.perf_counter()
                    await floor.sequence(shared.STEPS1)
                    spent.append(time.perf_counter() - began)
                shared.emit("W1", **shared.latency(spent))
            case "W2":
                shared.emit("W2", steps_per_s=await floor.many())
            case "W3":
                shared.emit("W3", seconds=await floor.fan())
            case "W4":
                stamps = [time.perf_counter()]
                for i in range(shared.STEPS4):
                    await floor.stream.publish("floor.grow", json.dumps(shared.large(i)).encode())
                    stamps.append(time.perf_counter())
                info = await floor.stream.stream_info("FLOOR", subjects_filter="floor.grow")
                shared.emit("W4", last_to_first=shared.growth(stamps), bytes_per_step=info.state.bytes / info.state.messages)
            case _:
                sys.exit(f"the floor has no {workload}")
        await floor.client.close()
    finally:
        await server.stop()


if __name__ == "__main__":
    run(main(sys.argv[1]))

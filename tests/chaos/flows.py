"""The workflows under load, and a worker process for them: `python -m tests.chaos.flows URL NAMESPACE JOURNAL LEASE`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from noria import BrokerUnavailable, Context, Noria, Workflow, step
from tests.chaos.journal import noted

JOURNAL = ""
PAUSE = 0.06


@step
async def add(x: int, ctx: Context) -> int:
    with noted(JOURNAL, ctx):
        await asyncio.sleep(PAUSE)
    return x + 1


@step
async def item(x: int, ctx: Context) -> int:
    with noted(JOURNAL, ctx):
        await asyncio.sleep(PAUSE)
    return x * 2


@step
async def ask(x: int, ctx: Context) -> int:
    with noted(JOURNAL, ctx):
        return ctx.suspend({"x": x}) if ctx.resume_data is None else x + ctx.resume_data


def chain(id: str, steps: int) -> Workflow:
    flow = Workflow(id)
    for n in range(steps):
        flow = flow.then(add.clone(id=f"s{n}"))
    return flow


inner = Workflow("inner").then(add).then(add.clone(id="again")).commit()
FLOWS = {
    "chain": chain("chain", 6).commit(),
    "fan": (
        Workflow("fan").parallel(add.clone(id="a"), add.clone(id="b"), inner).map(lambda prev: [prev["a"], prev["b"], prev["inner"]])
        .foreach(item, concurrency=2).map(lambda prev: sum(prev)).commit()
    ),
    "asks": Workflow("asks").then(add).then(ask).then(add.clone(id="last")).commit(),
    "loop": Workflow("loop").do_while(add, lambda prev: prev % 5 != 0).then(inner).commit(),
    "sleeps": Workflow("sleeps").then(add).sleep(0.2).then(add.clone(id="mid")).sleep(2.5).then(add.clone(id="last")).commit(),
}  # fmt: skip


def expected(kind: str, x: int, answer: int = 100) -> int:
    """What a run of the kind on `x` comes to, told without the engine."""
    match kind:
        case "chain":
            return x + 6
        case "fan":
            return 2 * ((x + 1) + (x + 1) + (x + 2))
        case "asks":
            return x + 1 + answer + 1
        case "loop":
            rounds = x + 1
            while rounds % 5:
                rounds += 1
            return rounds + 2
        case "sleeps":
            return x + 3
        case _:
            raise ValueError(kind)


async def work(url: str, namespace: str, lease: float, options: dict[str, Any]) -> None:
    async with Noria.connect(url, namespace=namespace, **options) as noria:
        print("ready", flush=True)
        await noria.serve(*FLOWS.values(), lease=lease)


async def insist(*given: Any) -> None:
    """Work, also where the server is just not there."""
    while True:
        try:
            return await work(*given)
        except BrokerUnavailable:
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    JOURNAL = sys.argv[3]
    asyncio.run(insist(sys.argv[1], sys.argv[2], float(sys.argv[4]), {"replicas": int(sys.argv[5])} if len(sys.argv) > 5 else {}))

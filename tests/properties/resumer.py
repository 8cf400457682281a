"""Answers what random graphs ask, in random order and addressed in random ways; also as a process of its own, which reads
its job as JSON."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from typing import Any

from noria import Noria, Suspension
from noria.client.run import Run
from tests.properties.graphs import make_flow
from tests.properties.interpreter import answer

Address = tuple[dict[str, Any], list[Suspension]]


async def resume_all(url: str, namespace: str, specs: list[Any], seed: int, most: int) -> int:
    """Host the graphs on a fresh worker and resume each run up to `most` times; how many resumes it took."""
    flows = [make_flow(f"w{n}", spec).commit() for n, spec in enumerate(specs)]
    async with Noria.connect(url, namespace=namespace) as noria, noria.worker(*flows):
        runs = [noria.create_run(f"w{n}", f"r{n}") for n in range(len(specs))]
        return sum(await asyncio.gather(*(_resume(run, random.Random(f"{seed}.{n}"), most) for n, run in enumerate(runs))))


async def _resume(run: Run, chance: random.Random, most: int) -> int:
    result, count = await run.result(timeout=30), 0
    while result.status == "suspended" and count < most:
        picked: list[Address] = []
        for _ in range(chance.choice([1, 1, 2, 3])):
            taken = [id(s) for _, hit in picked for s in hit]
            left = [s for s in result.suspended if id(s) not in taken]
            if left:
                address = _address(result.suspended, chance.choice(left), chance)
                if not any(id(s) in taken for s in address[1]):
                    picked.append(address)
        await asyncio.gather(*(run.resume({s.labels[0]: answer(s.labels[0]) for s in hit}, **how) for how, hit in picked))
        count += len(picked)
        result = await run.result(timeout=30)
    return count


def _address(suspended: list[Suspension], one: Suspension, chance: random.Random) -> Address:
    """A way to name one suspension, and all that this names."""
    match chance.choice(["label", "path", "index", "auto"]):
        case "path":
            return {"step": one.path}, [s for s in suspended if s.path == one.path]
        case "index" if one.index is not None:
            return {"step": ".".join(one.path), "index": one.index}, [s for s in suspended if (s.path, s.index) == (one.path, one.index)]
        case "auto" if len(suspended) == 1:
            return {}, [one]
        case _:
            return {"label": one.labels[0]}, [s for s in suspended if s.labels == one.labels]


if __name__ == "__main__":
    print(json.dumps({"resumes": asyncio.run(resume_all(**json.load(sys.stdin)))}))

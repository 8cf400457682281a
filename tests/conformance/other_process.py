"""A workflow, and a process of its own that resumes a run of it: `other_process.py URL NAMESPACE RUN`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from noria import Context, Noria, Workflow, step


@step(id="asks")
async def asks(x: int, ctx: Context) -> Any:
    if ctx.resume_data is None:
        ctx.set_state(asked=x)
        ctx.suspend({"how many on top of": x})
    seen = dict(ctx.state)
    ctx.set_state(answered=x + ctx.resume_data)
    return {"x": x, "given": ctx.resume_data, "state": seen, "user": ctx.request_context["user"], "resource": ctx.resource_id}


flow = Workflow("elsewhere").then(Workflow("deep").then(asks)).commit()


async def main(url: str, namespace: str, run_id: str) -> None:
    async with Noria.connect(url, namespace=namespace) as noria, noria.worker(flow, lease=5):
        result = await noria.create_run(flow, run_id).resume(37)
    print(json.dumps({"result": result.result, "state": result.state}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

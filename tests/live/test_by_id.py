"""Who knows a workflow by its id only is refused bad data all the same, before anything is recorded."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from noria import Context, InvalidInput, Noria, Workflow, WorkflowNotFound, step


class Order(BaseModel):
    sku: str
    count: int = 1
    due: datetime | None = None


class Approval(BaseModel):
    by: str
    level: Literal["low", "high"] = "low"


@step
async def reserve(order: Order) -> dict[str, Any]:
    return order.model_dump(mode="json")


@step(resume=Approval)
async def approve(x: Any, ctx: Context) -> Any:
    return ctx.suspend() if ctx.resume_data is None else {"by": ctx.resume_data.by, "level": ctx.resume_data.level}


ORDER = Workflow("order", input=Order).then(reserve).then(approve).commit()
INNER = Workflow("inner").then(approve).commit()
OUTER = Workflow("outer").then(INNER).commit()
EACH = Workflow("each").foreach(approve, concurrency=2).commit()
LAX = Workflow("lax", input=Order, validate=False).map(lambda prev: prev, id="same").commit()


@pytest.fixture(params=["streams", "api"])
async def stranger(noria: Noria, server_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Noria]:
    """A client that has none of the workflows, beside a worker."""
    async with noria.worker(ORDER, OUTER, EACH, LAX), Noria.connect(server_url, namespace=noria.namespace, via=request.param) as client:
        yield client


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"count": 2}, "sku"), ({"sku": 5}, "sku"), ({"sku": "a", "count": "many"}, "count"), ({"sku": "a", "count": 1.5}, "count"),
        ({"sku": "a", "due": "soon"}, "due"), (None, "order"), ([], "order"),
    ],
)  # fmt: skip
async def test_bad_input_starts_nothing(stranger: Noria, data: Any, field: str) -> None:
    run = stranger.create_run("order", "r1")
    with pytest.raises(InvalidInput, match=field) as caught:
        await run.start(data)
    assert caught.value.errors()
    with pytest.raises(InvalidInput, match=field):
        await run.start_async(data)
    assert await run.get() is None
    assert (await stranger.runs.list("order")).total == 0


async def test_what_pydantic_takes_is_taken_and_gets_its_defaults(stranger: Noria) -> None:
    result = await stranger.run("order", {"sku": "a", "count": "2", "due": 1_700_000_000})
    assert result.status == "suspended", result.error
    assert result.steps["reserve"].output["count"] == 2
    assert (await stranger.run("order", {"sku": "a"})).steps["reserve"].output["count"] == 1
    assert (await stranger.run("lax", {"no": "order"})).result == {"no": "order"}


@pytest.mark.parametrize(("workflow", "input", "last"), [("order", {"sku": "a"}, 1), ("outer", {}, 1), ("each", [1, 2], 2)])
async def test_bad_resume_data_resumes_nothing(stranger: Noria, workflow: str, input: Any, last: int) -> None:
    run = stranger.create_run(workflow)
    assert (await run.start(input)).status == "suspended"
    for data, field in (({"level": "low"}, "by"), ({"by": "me", "level": "middle"}, "level"), (None, "approve")):
        with pytest.raises(InvalidInput, match=field):
            await run.resume(data)
    record = await run.get()
    assert record is not None and record.status == "suspended"
    assert len(record.suspended) == last
    result = await run.resume({"by": "me"})
    approved = {"by": "me", "level": "low"}
    assert result.unwrap() == ([approved] * 2 if workflow == "each" else approved)


async def test_what_was_read_earlier_refuses_nothing(noria: Noria, server_url: str) -> None:
    def of(input: Any) -> Workflow:
        return Workflow("grows", input=input, version=str(input)).map(lambda prev: prev, id="same").commit()

    async with Noria.connect(server_url, namespace=noria.namespace) as client:
        with pytest.raises(WorkflowNotFound):
            await client.run("grows", 1)
        async with noria.worker(of(int)):
            assert (await client.run("grows", 1)).result == 1
            with pytest.raises(InvalidInput):
                await client.run("grows", "x")
        async with noria.worker(of(str)):
            assert (await client.run("grows", "x")).result == "x"


@pytest.mark.parametrize(("words", "field"), [(("run", "order", "--input", '{"count": 1}'), "sku"), (("runs", "resume", "r1", "--data", "{}"), "by")])
async def test_the_command_line_says_which_field(noria: Noria, server_url: str, words: tuple[str, ...], field: str) -> None:
    async with noria.worker(ORDER):
        await noria.create_run(ORDER, "r1").start({"sku": "a"})
        where = ("-s", server_url, "-n", noria.namespace)
        ran = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from noria.cli.main import main; main()", *words, *where, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        _, said = await ran.communicate()
        assert ran.returncode == 2 and field in said.decode()

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

from noria import Context, InvalidInput, Noria, NoriaError, Workflow, WorkflowNotFound, step
from noria.workflow.catalogue import describe_within


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


class Tally(BaseModel):
    count: int
    by: str = "nobody"


class Caller(BaseModel):
    tenant: str


@step
async def weigh(order: Order) -> int:
    return order.count


DEEP = Workflow("deep", input=Order).then(weigh.clone(id="inner")).commit()
TYPED = (
    Workflow("typed", state=Tally, context=Caller).then(approve).map(lambda prev: {"sku": "a"}, id="made").then(weigh)
    .map(lambda prev: [{"sku": "a"}], id="listed").foreach(weigh.clone(id="each")).map(lambda prev: {"sku": "b"}, id="again").then(DEEP)
).commit()  # fmt: skip
LOOSE = Workflow("loose", state=Tally, context=Caller, validate=False).then(approve).then(weigh).commit()
GOOD = {"state": {"count": 1}, "request_context": {"tenant": "acme"}}
BAD_CALLS: list[tuple[str, dict[str, Any]]] = [
    ("start", {"request_context": GOOD["request_context"], "state": {"count": "many"}}),
    ("start", {"request_context": GOOD["request_context"], "state": {"by": "me"}}),
    ("start", {"state": GOOD["state"]}),
    ("start", {"state": GOOD["state"], "request_context": {"tenant": 5}}),
    ("resume", {"data": {"by": "me"}, "request_context": {"tenant": None}}),
    ("time_travel", {"step": "weigh", "input": {"count": 1}}),
    ("time_travel", {"step": "weigh", "input": {"sku": "a", "count": "many", "due": "soon"}}),
    ("time_travel", {"step": "each", "input": {"sku": "a"}}),
    ("time_travel", {"step": "each", "input": [{"sku": "a"}, {"sku": 1}]}),
    ("time_travel", {"step": "deep", "input": {}}),
    ("time_travel", {"step": ["deep", "inner"], "input": {"sku": 7}}),
    ("time_travel", {"step": "weigh", "input": {"sku": "a"}, "state": {"count": "x"}}),
    ("time_travel", {"step": "weigh", "input": {"sku": "a"}, "request_context": {"tenant": 1}}),
    ("fork", {"step": "weigh", "input": 3}),
    ("fork", {"step": "weigh", "input": {"sku": "a"}, "state": {"count": None}}),
]


@pytest.mark.parametrize("via", ["streams", "api"])
async def test_what_the_workflow_itself_would_refuse_is_refused_by_its_id(noria: Noria, server_url: str, via: str) -> None:
    async with noria.worker(TYPED, LOOSE), Noria.connect(server_url, namespace=noria.namespace, via=via) as stranger:
        assert (await stranger.create_run("typed", "r1").start(None, **GOOD)).status == "suspended"
        for verb, given in BAD_CALLS:
            errors: list[InvalidInput] = []
            for client, flow in ((noria, TYPED), (stranger, "typed")):
                run = client.create_run(flow, None if verb == "start" else "r1")
                with pytest.raises(InvalidInput) as caught:
                    await getattr(run, verb)(**given)
                errors.append(caught.value)
            first, second = ([line.partition(":")[0] for line in str(e).splitlines()] for e in errors)
            assert first == second, (verb, given, *map(str, errors))  # what, and the fields
            assert {e["loc"] for e in errors[0].errors()} == {e["loc"] for e in errors[1].errors()}, (verb, given)
        record = await stranger.runs.get("r1")
        assert record is not None and record.status == "suspended" and record.state["count"] == 1
        assert (await stranger.runs.list()).total == 1


@pytest.mark.parametrize("via", ["streams", "api"])
async def test_what_fits_passes_by_its_id(noria: Noria, server_url: str, via: str) -> None:
    async with noria.worker(TYPED, LOOSE), Noria.connect(server_url, namespace=noria.namespace, via=via) as stranger:
        run = stranger.create_run("typed")
        assert (await run.start(None, **GOOD)).status == "suspended"
        assert (await run.resume({"by": "me"}, request_context={"tenant": "other"})).result == 1
        moved = await run.time_travel("each", input=[{"sku": "a", "count": "2"}], state={"by": "me"})
        assert (moved.steps["each"].output, moved.state) == ([2], {"count": 1, "by": "me"})
        assert (await run.time_travel(["deep", "inner"], input={"sku": "a", "count": 5})).result == 5
        never = stranger.create_run("typed")
        assert (await never.time_travel("weigh", input={"sku": "a"}, state={"by": "me"})).result == 1
        loose = stranger.create_run("loose")
        assert (await loose.start(None, state={"count": "x"})).status == "suspended"
        assert (await loose.time_travel("weigh", input=3, request_context={"n": 1})).status == "failed"  # the step itself: 3 has no count


def test_a_description_that_is_too_large_leaves_the_inputs_out() -> None:
    whole = describe_within(TYPED, 1 << 20)
    assert b'"deep.inner":' in whole and b'"Tally"' in whole
    less = describe_within(TYPED, len(whole) - 1)
    assert b'"inputs":{}' in less and b'"Tally"' in less


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


async def test_an_entry_of_the_catalogue_that_is_none_is_told_and_written_anew(noria: Noria) -> None:
    connection, subjects = noria.broker.connection, noria.broker.subjects
    async with noria.worker(ORDER, OUTER):
        await connection.append(f"$KV.{subjects.catalogue}.order", b"{garbled")
    with pytest.raises(NoriaError, match="entry of workflow 'order' is unreadable"):
        await noria.workflows.get("order")
    async with Noria.connect(noria.url, namespace=noria.namespace) as other:
        with pytest.raises(NoriaError, match="entry of workflow 'order' is unreadable"):
            await other.create_run("order").start_async({"sku": "a"})
        assert [each["id"] for each in await other.workflows.list()] == ["outer"]
        async with noria.worker(ORDER):
            assert (await other.create_run("order").start({"sku": "a"}, timeout=20)).status == "suspended"

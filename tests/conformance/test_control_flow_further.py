"""Control flow, cases of the same kind as the rows that no row tells."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from pydantic import BaseModel

from noria import Context, InvalidInput, Noria, Retry, RunResult, Workflow, from_step, step, template
from tests.conformance.conftest import Host, Run
from tests.conformance.doubles import drained, failed, fails, gives, outputs, statuses, told, waits


class Nested(BaseModel):
    value: int


class Data(BaseModel):
    required: str
    nested: Nested = Nested(value=1)


class Empty(BaseModel):
    pass


async def test_state_given_at_the_start_is_read_and_written(run: Run) -> None:
    @step
    async def shout(ctx: Context) -> str:
        ctx.set_state(value=ctx.state["value"] + "!!!")
        return ctx.state["value"]

    result = await run(Workflow("state").then(shout), {}, state={"value": "test"})
    assert (result.result, result.state) == ("test!!!", {"value": "test!!!"})


async def test_results_are_typed_where_they_are_unwrapped(run: Run) -> None:
    result = await run(Workflow("typed", output=Data).then(gives("step1", {"required": "x"})), {})
    assert result.result == {"required": "x"} and result.unwrap() == Data(required="x")


async def test_a_first_call_has_neither_suspend_nor_resume_data(run: Run) -> None:
    seen: list[Any] = []
    assert (await run(Workflow("first").then(step(lambda x, ctx: seen.extend([ctx.suspend_data, ctx.resume_data]), id="s")))).status == "success"
    assert seen == [None, None]


async def test_a_template_reads_any_earlier_step_and_renders_null_as_nothing(run: Run) -> None:
    text = template("$5, $$, ${steps.early-step.value.nested} [${prev.b}] [${prev.none}] ${steps.scalar}")
    first = gives("early-step", {"value": {"nested": "deep"}})
    flow = Workflow("rendered").then(first).then(gives("scalar", "plain")).then(gives("last", {"b": None})).map({"ref": text})
    assert (await run(flow, {})).result == {"ref": "$5, $$, deep [] [] plain"}


async def test_conditions_mappings_and_steps_see_one_state(run: Run) -> None:
    def told_by(id: str) -> Any:
        return step(lambda x, ctx: {"by": id, "state": ctx.state["value"]}, id=id)

    second, third = told_by("step2"), told_by("step3")
    flow = Workflow("seen").then(told_by("step1"))
    flow = flow.branch((lambda x, ctx: ctx.state["value"] == x["state"], second), (lambda x, ctx: ctx.state["value"] != x["state"], third))
    result = await run(flow.map({"by": from_step([third, second], "by")}).then(told_by("step4")), {}, state={"value": "v"})
    assert result.result == {"by": "step4", "state": "v"} and result.steps["step4"].input == {"by": "step2"}


async def test_conditions_may_ask_for_results_and_combine_them(run: Run, calls: Counter[str]) -> None:
    first = gives("step1", {"status": "partial", "score": 75}, calls)
    second, third = gives("step2", {"result": "step2"}, calls), gives("step3", {"result": "step3"}, calls)

    async def good(ctx: Context) -> bool:
        seen = ctx.step_result(first)
        return seen["status"] == "success" or (seen["status"] == "partial" and seen["score"] >= 70)

    flow = Workflow("combined").then(first).branch((good, second)).map({"result": from_step(second, "result")})
    flow = flow.branch((lambda x, ctx: not x["result"] or ctx.step_result("step1")["score"] < 70, third)).map({"result": from_step(third, "result")})
    result = await run(flow, {})
    assert calls == {"step1": 1, "step2": 1} and result.steps["step2"].input == {"status": "partial", "score": 75}
    assert result.status == "failed" and result.error is not None and "'step3'" in result.error.message  # it did not run


@pytest.mark.parametrize("validate", [True, False])
async def test_a_type_without_fields_lets_the_data_through(run: Run, validate: bool) -> None:
    first = gives("step1", lambda data: data, input=Empty, output=Empty)
    flow = Workflow("fields", input=Empty, validate=validate).then(first).branch((lambda x: x["count"] > 3, gives("step2", None)))
    result = await run(flow, {"count": 5})
    assert outputs(result) == {"step1": {"count": 5}, "step2": None} and result.input == {"count": 5} and result.result == {"step2": None}


async def test_what_an_item_writes_deep_inside_the_next_one_reads(run: Run) -> None:
    seen: list[int] = []
    reads = Workflow("reads", input=int).then(step(lambda x, ctx: seen.append(ctx.state["out"]) or x, id="r"))
    writes = Workflow("writes", input=int).then(step(lambda x, ctx: ctx.set_state(out=2) or x, id="w"))
    item = Workflow("item", input=int).branch((lambda x: x == 1, reads), (lambda x: x == 2, writes)).map(lambda x: sum(x.values()))
    result = await run(Workflow("items", input=list[int]).foreach(item), [2, 1], state={"out": 0})
    assert (result.result, result.state, seen) == ([2, 1], {"out": 2}, [2])


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_each_item_tells_of_its_progress(noria: Noria, host: Host, concurrency: int) -> None:
    async def adds(x: int) -> int:
        await asyncio.sleep(0.01)
        return x + 11

    handle = await host(Workflow("told").foreach(step(adds), concurrency=concurrency))
    events = told(await drained(handle.stream([1, 22, 333])), "step-progress")
    assert [(e["completed"], e["total"], e["status"]) for e in events] == [(n, 3, "success") for n in (1, 2, 3)]
    assert sorted((e["index"], e["output"]) for e in events) == [(0, 12), (1, 33), (2, 344)]


async def test_the_steps_own_retry_counts_and_not_the_workflows(run: Run, calls: Counter[str]) -> None:
    first, second = gives("step1", 1, calls, retry=Retry(attempts=5)), fails("step2", "Step failed", calls, retry=Retry(attempts=5))
    result = await run(Workflow("own", retry=Retry(attempts=10, delay=0.01)).then(first).then(second), {})
    failed(result, "step2", "Step failed")
    assert calls == {"step1": 1, "step2": 6} and result.steps["step2"].attempts == 6
    calls.clear()
    await run(Workflow("none", retry=Retry(attempts=3)).then(fails("once", "no", calls, retry=Retry())), {})
    assert calls == {"once": 1}


async def test_clones_stand_beside_what_they_are_clones_of(run: Run, calls: Counter[str]) -> None:
    other = gives("other", 26, calls)
    total = step(lambda x, ctx: (ctx.step_result("start") or 0) + (ctx.step_result("other-clone") or 0) + (ctx.step_result("other") or 0), id="total")
    flow = Workflow("chain").then(gives("start", 1, calls)).then(other.clone(id="other-clone")).then(total).commit()
    twin = flow.clone(id="twin")
    assert twin.committed
    result = await run(Workflow("around").parallel(flow, twin).then(flow.clone(id="third")), {})
    assert result.status == "success" and calls == {"start": 3, "other": 3}  # a clone counts as what it is a clone of
    assert (result.steps["twin"].output, result.result) == (27, 27) and statuses(result) == dict.fromkeys(["chain", "twin", "third"], "success")


async def test_defaults_fill_the_workflows_input(run: Run) -> None:
    result = await run(Workflow("filled", input=Data, output=Data).then(gives("step1", lambda data: data, input=Data)), {"required": "x"})
    full = {"required": "x", "nested": {"value": 1}}
    assert result.input == result.result == result.steps["step1"].input == full


async def test_input_that_does_not_fit_is_refused_however_it_is_started(noria: Noria, host: Host) -> None:
    handle = await host(Workflow("refused", input=Data).then(gives("step1", 1)))
    for start in (handle.start, handle.start_async, lambda data: handle.stream(data).result()):
        with pytest.raises(InvalidInput, match=r"^Invalid input data: [^\n]*\n- required: "):
            await start({"required": 123})
    assert await handle.get() is None


async def test_a_mapping_behind_a_foreach_gives_what_the_next_type_wants(run: Run, calls: Counter[str]) -> None:
    item = gives("map", lambda data: {"value": data["value"] + 11}, calls, input=Nested, output=Nested)
    flow = Workflow("summed", input=list[Nested]).foreach(item).map(lambda items: {"value": sum(i["value"] for i in items)}, id="sum")
    result = await run(flow.then(gives("final", lambda data: data["value"], input=Nested)), [{"value": 1}, {"value": 22}, {"value": 333}])
    assert result.result == 389 and result.steps["sum"].output == {"value": 389} and calls == {"map": 3}


async def test_a_failure_beside_a_suspension_that_is_tolerated_waits(host: Host) -> None:
    handle = await host(Workflow("tolerant").parallel(waits("asks", {"v": 2}), fails("bad", "no"), allow_failure=True))
    result = await handle.start({})
    assert result.status == "suspended" and statuses(result) == {"asks": "suspended", "bad": "failed"}
    assert (await handle.resume(1)).result == {"asks": {"v": 2}, "bad": None}


async def test_callbacks_may_be_async_and_know_all_of_the_run(noria: Noria) -> None:
    seen: list[Any] = []

    async def told(result: RunResult, ctx: Context) -> None:
        await asyncio.sleep(0.01)
        seen.append((result.run_id, result.workflow_id, result.status, result.state, result.input, ctx.run_id, ctx.resource_id))

    count = step(lambda x, ctx: ctx.set_state(counter=ctx.state.get("counter", 0) + 1), id="count")
    flows = [Workflow("well", on_finish=told).then(count), Workflow("ill", on_finish=told, on_error=told).then(count).then(fails("bad", "no"))]
    async with noria.worker(*flows):
        for flow in flows:
            await noria.run(flow, {"u": 1}, run_id=f"run-{flow.id}", resource_id="me")
    ends = [("well", "success"), ("ill", "failed"), ("ill", "failed")]
    assert seen == [(f"run-{id}", id, status, {"counter": 1}, {"u": 1}, f"run-{id}", "me") for id, status in ends]


async def test_the_request_context_is_there_without_being_given_and_goes_along(host: Host) -> None:
    seen: list[dict[str, Any]] = []

    @step
    async def asks(x: Any, ctx: Context) -> None:
        context = ctx.request_context
        seen.append(dict(context))
        context["said"] = [*context.get("said", []), "again" if ctx.resume_data else "first"]
        if ctx.resume_data is None:
            ctx.suspend({})

    handle = await host(Workflow("carried").then(asks).then(step(lambda x, ctx: ctx.request_context["said"], id="reads")))
    assert (await handle.start({})).status == "suspended"
    assert (await handle.resume({"go": 1}, step="asks")).result == ["first", "again"]
    assert seen == [{}, {"said": ["first"]}]

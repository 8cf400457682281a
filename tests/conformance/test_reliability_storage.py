"""Area storage of reliability.yaml: what is recorded, when, and under which name."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from pydantic import BaseModel

from noria import Context, Noria, RunAlreadyStarted, Workflow, step
from noria.contract.envelopes import decode
from noria.contract.facts import StepEnded
from noria.ports import ActorKey
from tests.conformance.doubles import gives
from tests.conformance.test_reliability_concurrency import asks


class Filled(BaseModel):
    n: int
    more: str = "default"


async def facts_of(noria: Noria, workflow: str, run: str) -> list[tuple[str, Any]]:
    found = await noria.broker.log.read_tree(ActorKey(workflow, run))
    return [(entry.actor.path, fact) for entry in found for fact in decode(entry.body).facts]


@pytest.mark.row("ST-01")
@pytest.mark.row("ST-02")
@pytest.mark.row("ST-03")
async def test_what_a_deleted_run_left_in_flight_is_refused(noria: Noria) -> None:
    """The chain is the mark: a write of a former life expects a sequence that its subject no longer has."""
    from noria.ports import Refused

    flow = Workflow("flow").foreach(gives("each", 1)).then(Workflow("inner").then(gives("deep", 1))).commit()
    async with noria.worker(flow):
        await noria.run(flow, [1, 2], run_id="r")
        chains = {entry.actor: entry.sequence for entry in await noria.broker.log.read_tree(ActorKey("flow", "r"))}
        assert {key.path for key in chains} == {"", "each=0", "each=1", "inner"}
        await noria.runs.delete("r", "flow")
        for actor, sequence in chains.items():
            with pytest.raises(Refused):
                await noria.broker.log.append(actor, b"{}", sequence)
        with pytest.raises(RunAlreadyStarted):
            await noria.create_run(flow, "r").start([1])


@pytest.mark.row("ST-04")
async def test_the_input_is_known_to_the_end(noria: Noria) -> None:
    seen: list[Any] = []

    def reads(id: str):
        async def read(x: Any, ctx: Context) -> Any:
            seen.append((id, ctx.init_data))
            return x

        return step(read, id=id)

    inner = Workflow("inner").then(reads("deep")).commit()
    flow = Workflow("flow").then(reads("before")).then(asks).do_while(inner, lambda prev, ctx: ctx.iteration < 2).then(reads("after")).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        await run.start({"original": 1})
        assert (await run.resume({"answer": 1})).status == "success"
    assert seen == [("before", {"original": 1}), ("deep", {"answer": 1}), ("deep", {"answer": 1}), ("after", {"original": 1})]


@pytest.mark.row("ST-05")
async def test_a_transient_run_leaves_nothing_behind(noria: Noria) -> None:
    flow = Workflow("flow", retention=0).then(gives("one", 1)).commit()
    async with noria.worker(flow):
        result = await noria.run(flow, 1)
        assert result.status == "success" and await noria.runs.get(result.run_id, flow) is None


@pytest.mark.row("ST-08")
async def test_a_finished_parallel_child_is_stored_at_once(noria: Noria) -> None:
    release = asyncio.Event()

    @step
    async def slow(x: int) -> int:
        await release.wait()
        return x

    flow = Workflow("flow").parallel(gives("fast", 1), slow).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        await run.start_async(1)
        async with asyncio.timeout(10):
            while (record := await run.get()) is None or "fast" not in record.steps or record.steps["fast"].status != "success":
                await asyncio.sleep(0.02)
        assert record.status == "running" and record.result is None
        release.set()
        assert (await run.result()).status == "success"


@pytest.mark.row("ST-09")
@pytest.mark.row("ST-10")
async def test_a_record_never_goes_back(noria: Noria) -> None:
    """A late write of an older state is refused by the record's revision."""
    from noria.ports import Refused

    flow = Workflow("flow").then(asks).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        seen = []
        async for event in run.stream(1):
            seen.append(event.type)
        key = ActorKey("flow", run.id).tree
        before = await noria.broker.records.get(key)
        assert before is not None and (await run.get()).status == "suspended"
        assert (await run.resume(5)).status == "success"
        with pytest.raises(Refused):
            await noria.broker.records.put(key, before.body, before.revision, "{}")
        assert (await run.get()).status == "success"


@pytest.mark.row("ST-12")
@pytest.mark.not_applicable(6, "nothing declines a record, and the log is the run")
async def test_a_declined_write() -> None: ...


@pytest.mark.row("ST-13")
@pytest.mark.row("ST-14")
@pytest.mark.row("ST-15")
@pytest.mark.row("ST-16")
@pytest.mark.row("ST-17")
async def test_every_call_has_a_key_of_its_own(noria: Noria) -> None:
    keys: list[tuple[str, bool, str]] = []

    def notes(id: str, *, suspends: bool = False):
        async def note(x: Any, ctx: Context) -> Any:
            keys.append((id, ctx.resume_data is not None, ctx.idempotency_key))
            return ctx.suspend() if suspends and ctx.resume_data is None else x

        return step(note, id=id)

    flow = (
        Workflow("flow").then(notes("once")).sleep(0.01).do_while(notes("round"), lambda prev, ctx: ctx.iteration < 3)
        .do_while(notes("waits", suspends=True), lambda prev, ctx: ctx.iteration < 2)
        .map(lambda: ["same", "same", "same"]).foreach(notes("each"), concurrency=3).foreach(notes("slow")).commit()
    )  # fmt: skip
    async with noria.worker(flow):
        run = noria.create_run(flow)
        assert (await run.start(1)).status == "suspended"
        await run.resume("a")
        assert (await run.resume("b")).status == "success"
        events = [e.id async for e in run.observe()]
    assert len(events) == len(set(events))
    first = [key for _, resumed, key in keys if not resumed]
    assert len(first) == len(set(first)) == 1 + 3 + 2 + 3 + 3
    assert [key for name, resumed, key in keys if name == "waits" and not resumed] == [key for _, resumed, key in keys if resumed]
    assert len({key for name, _, key in keys if name == "waits"}) == 2


@pytest.mark.row("ST-18")
@pytest.mark.parametrize("payload", [[1, {"a": None}], "text", 0, False, {"deep": [[]]}])
async def test_a_payload_of_any_type_comes_back(noria: Noria, payload: Any) -> None:
    seen: list[Any] = []

    @step
    async def waits(x: Any, ctx: Context) -> int:
        if ctx.resume_data is None:
            ctx.suspend(payload)
        seen.append(ctx.suspend_data)
        return 1

    flow = Workflow("flow").then(waits).commit()
    async with noria.worker(flow):
        run = noria.create_run(flow)
        assert (await run.start(1)).suspended[0].payload == payload
        await run.resume(True)
    assert seen == [payload] and type(seen[0]) is type(payload)


@pytest.mark.row("ST-19")
async def test_a_step_begins_behind_its_predecessors_result(noria: Noria) -> None:
    found: list[list[str]] = []

    @step
    async def looks(x: int, ctx: Context) -> int:
        stored = await facts_of(noria, "flow", ctx.run_id)
        found.append([fact.step for _, fact in stored if isinstance(fact, StepEnded)])
        return x

    flow = Workflow("flow").then(gives("one", 1)).then(looks).then(looks.clone(id="three")).commit()
    async with noria.worker(flow):
        await noria.run(flow, 0)
    assert found == [["one"], ["one", "looks"]]


@pytest.mark.row("ST-20")
@pytest.mark.row("ST-21")
async def test_a_result_is_the_next_steps_start_record_unless_that_got_something_else(noria: Noria) -> None:
    async def typed(data: Filled) -> Any:
        return {"n": data.n, "more": data.more}

    flow = Workflow("flow").then(gives("one", {"n": 1})).then(step(typed, id="two")).then(gives("three", b"bytes")).commit()
    async with noria.worker(flow):
        result = await noria.run(flow, 0)
    log = await noria.broker.log.read_tree(ActorKey("flow", result.run_id))
    facts = {f.step: f for _, f in await facts_of(noria, "flow", result.run_id) if isinstance(f, StepEnded)}
    assert len(log) == 3, "one append per step"
    assert {name: f.has_input for name, f in facts.items()} == {"one": False, "two": True, "three": False}
    assert result.steps["two"].input == {"n": 1, "more": "default"} and result.result == "bytes"


@pytest.mark.row("ST-22")
async def test_a_record_shows_values_as_they_were_at_its_own_write(noria: Noria, calls: Counter[str]) -> None:
    shared: dict[str, Any] = {"n": 1}

    @step
    async def gives_shared(x: int, ctx: Context) -> Any:
        ctx.set_state(kept=shared)
        ctx.request_context["kept"] = shared
        return shared

    @step
    async def changes(x: Any) -> Any:
        shared["n"] = 2
        return shared

    flow = Workflow("flow").then(gives_shared).then(changes).commit()
    async with noria.worker(flow):
        result = await noria.run(flow, 0)
        record = await noria.runs.get(result.run_id)
    assert record is not None and record.steps["gives-shared"].output == {"n": 1} and record.steps["changes"].output == {"n": 2}
    assert record.state == {"kept": {"n": 1}} and record.request_context == {"kept": {"n": 1}}

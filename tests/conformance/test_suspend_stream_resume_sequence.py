"""Suspend and stream, area resume: one step after the other, and what their records say."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from noria import Context, InvalidInput, Noria, RunNotSuspended, Step, StepNotSuspended, Workflow, step
from tests.conformance.conftest import Host
from tests.conformance.doubles import adds, gives, outputs, paths, statuses, timed, waits

TONE = {"toneScore": {"score": 0.8}, "completenessScore": {"score": 0.7}}
GIVEN = {"toneScore": {"score": 0.9}, "completenessScore": {"score": 0.8}}


class Value(BaseModel):
    value: int


class Answer(BaseModel):
    userInput: str = "default"


def basic(calls: Counter[str], label: Any = None) -> Workflow:
    def answer(_: Any, given: Any) -> Any:
        return {"result": "completed", "userInput": given.userInput}

    asks = waits("step2", answer, calls, payload={"reason": "waiting for user input"}, label=label, resume=Answer)
    return Workflow("basic").then(gives("step1", {"value": "step1-done"}, calls)).then(asks).commit()


@pytest.mark.row("resume-basic", "resume-step-execution-path")
async def test_by_id_from_a_handle_of_its_own(noria: Noria, host: Host, calls: Counter[str]) -> None:
    run = await host(basic(calls), f"run-{uuid.uuid4().hex[:8]}")
    first = await run.start({})
    assert first.status == "suspended" and calls == {"step1": 1, "step2": 1}
    assert first.steps["step2"].suspend_payload == {"reason": "waiting for user input"}
    second = await noria.create_run("basic", run.id).resume({"userInput": "hello from resume"}, step="step2")
    assert second.status == "success" and second.run_id == run.id and calls == {"step1": 1, "step2": 2}
    assert outputs(second)["step2"] == {"result": "completed", "userInput": "hello from resume"} and list(second.steps) == ["step1", "step2"]


@pytest.mark.row("resume-by-label", "cx-label-stored", "cx-label-other")
@pytest.mark.parametrize("labels", [["my-custom-label"], ["first", "my-custom-label"]])
async def test_by_label(host: Host, calls: Counter[str], labels: list[str]) -> None:
    run = await host(basic(calls, labels if len(labels) > 1 else labels[0]))
    first = await run.start({})
    record = await run.get()
    assert record is not None and [(s.path, s.labels) for s in record.suspended] == [(("step2",), tuple(labels))]
    assert first.suspended == record.suspended and first.suspended[0].payload == {"reason": "waiting for user input"}
    with pytest.raises(StepNotSuspended, match="my-custom-label"):
        await run.resume({}, label="another")
    result = await run.resume({"userInput": "resumed via label"}, label="my-custom-label")
    assert result.status == "success" and result.result == {"result": "completed", "userInput": "resumed via label"}


@pytest.mark.row("cx-label-auto")
async def test_a_labelled_step_without_naming_it(host: Host) -> None:
    approval = waits("approval", lambda data, given: {"item": data["item"], **given}, label="approve")
    run = await host(Workflow("labelled").then(approval))
    await run.start({"item": "x"})
    assert (await run.resume({"approved": True})).result == {"item": "x", "approved": True}


def processed() -> tuple[Step, Step]:
    asks = waits(
        "suspend-step", lambda _, given: {"result": f"processed-{given['extraData']}"},
        payload=lambda data: {"waitingFor": "user-input", "originalValue": data["value"]},
    )  # fmt: skip
    return asks, gives("complete-step", lambda data: {"final": f"Completed: {data['result']}"})


@pytest.mark.row("resume-explicit-and-auto", "fs-explicit-auto")
@pytest.mark.parametrize("how", ["id", "step", "list", "path", "suspension", "auto"])
async def test_named_in_every_way_or_not_at_all(host: Host, how: str) -> None:
    asks, complete = processed()
    run = await host(Workflow("named").then(asks).then(complete))
    first = await run.start({"value": 42})
    assert first.status == "suspended" and paths(first) == [["suspend-step"]]
    assert first.suspended[0].payload == {"waitingFor": "user-input", "originalValue": 42}
    names = {"id": "suspend-step", "step": asks, "list": [asks], "path": ["suspend-step"], "suspension": first.suspended[0].path, "auto": None}
    result = await run.resume({"extraData": f"{how}-resume"}, step=names[how])
    assert result.status == "success" and result.result == {"final": f"Completed: processed-{how}-resume"}


@pytest.mark.row("fs-auto-simple")
async def test_a_single_step(host: Host) -> None:
    flow = Workflow("simple").then(waits("simple-step", lambda data, given: data["value"] * given["multiplier"], payload={}))
    run, other = await host(flow), await host(flow)
    assert paths(await run.start({"value": 10})) == [["simple-step"]]
    assert (await run.resume({"multiplier": 5})).result == 50
    first = await other.start({"value": 20})
    assert (await other.resume({"multiplier": 3}, step=first.suspended[0].path)).result == 60


def averaged(data: Any, given: Any) -> Any:
    overall = {key: {"score": (data[key]["score"] + given[key]["score"]) / 2} for key in TONE}
    return {"improvedOutput": "improved output", "overallScore": overall}


@pytest.mark.row("resume-after-map", "fs-map-resume")
async def test_behind_a_mapping(host: Host) -> None:
    user = gives("getUserInput", lambda data: {"userInput": data["input"]})
    prompt = waits("promptAgent", lambda data, given: {"modelOutput": f"{data['userInput']} {given['userInput']}"}, payload={"testPayload": "hello"})
    improve = waits("improveResponse", averaged)
    evaluate = gives("evaluateImprovedResponse", lambda data: data["overallScore"])
    run = await host(Workflow("mapped").then(user).then(prompt).map(lambda _: TONE, id="evaluateToneConsistency").then(improve).then(evaluate))
    first = await run.start({"input": "test"})
    assert statuses(first) == {"getUserInput": "success", "promptAgent": "suspended"} and first.steps["getUserInput"].output == {"userInput": "test"}
    second = await run.resume({"userInput": "input for resumption"}, step="promptAgent")
    assert second.status == second.steps["improveResponse"].status == "suspended"
    assert second.steps["promptAgent"].output == {"modelOutput": "test input for resumption"}
    tone = second.steps["evaluateToneConsistency"]
    assert (tone.status, tone.output, tone.input) == ("success", TONE, {"modelOutput": "test input for resumption"})
    third = await run.resume(GIVEN, step=improve)
    improved = third.steps["improveResponse"]
    assert third.status == "success" and improved.input == TONE and improved.resume_payload == GIVEN and improved.suspend_payload is None
    assert third.result["toneScore"]["score"] == pytest.approx(0.85) and third.result["completenessScore"]["score"] == pytest.approx(0.75)
    assert improved.output == {"improvedOutput": "improved output", "overallScore": third.result}


def chain(calls: Counter[str], label: str | None = None) -> Workflow:
    return (
        Workflow("chain").then(gives("getUserInput", {"userInput": "test input"}, calls))
        .then(waits("promptAgent", {"modelOutput": "test output"}, calls, payload=None if label else {"testPayload": "hello"}, label=label))
        .then(gives("evaluateToneConsistency", TONE, calls))
        .then(waits("improveResponse", {"improvedOutput": "improved output"}, calls, when=lambda _: label is None))
        .then(gives("evaluateImprovedResponse", GIVEN, calls))
    )  # fmt: skip


@pytest.mark.row("fs-resume-chain")
async def test_every_field_of_the_records_over_two_suspensions(host: Host, calls: Counter[str]) -> None:
    run = await host(chain(calls))
    one = await run.start({"input": "test"})
    first, prompt = one.steps["getUserInput"], one.steps["promptAgent"]
    assert list(one.steps) == ["getUserInput", "promptAgent"] and one.input == {"input": "test"}
    assert (first.status, first.input, first.output) == ("success", {"input": "test"}, {"userInput": "test input"})
    assert (first.suspend_payload, first.resume_payload, first.suspended_at, first.resumed_at, first.error) == (None,) * 5
    assert (prompt.status, prompt.input, prompt.suspend_payload) == ("suspended", {"userInput": "test input"}, {"testPayload": "hello"})
    assert prompt.started_at is not None and prompt.suspended_at is not None and prompt.suspended_at >= prompt.started_at
    assert (prompt.output, prompt.ended_at, prompt.resume_payload, prompt.resumed_at, prompt.suspend_output) == (None,) * 5

    two = await run.resume({"userInput": "R1"}, step="promptAgent")
    prompt, improve = two.steps["promptAgent"], two.steps["improveResponse"]
    assert (prompt.status, prompt.output, prompt.input) == ("success", {"modelOutput": "test output"}, {"userInput": "test input"})
    assert (prompt.suspend_payload, prompt.resume_payload) == ({"testPayload": "hello"}, {"userInput": "R1"})
    assert prompt.started_at and prompt.suspended_at and prompt.resumed_at and prompt.ended_at
    assert prompt.started_at <= prompt.suspended_at <= prompt.resumed_at <= prompt.ended_at
    assert (improve.status, improve.input, improve.suspend_payload) == ("suspended", TONE, None)
    assert two.steps["evaluateToneConsistency"].output == TONE and two.started_at == one.started_at

    three = await run.resume({"improved": "R2"}, step=waits("improveResponse", None))
    improve = three.steps["improveResponse"]
    assert (improve.status, improve.output, improve.resume_payload) == ("success", {"improvedOutput": "improved output"}, {"improved": "R2"})
    assert three.steps["evaluateImprovedResponse"].output == three.result == GIVEN and calls["promptAgent"] == calls["improveResponse"] == 2
    timed(three, *three.steps)


@pytest.mark.row("fs-legacy-resume-label")
async def test_a_chain_resumed_by_label(host: Host, calls: Counter[str]) -> None:
    run = await host(chain(calls, "test-resume-label"))
    first = await run.start({"input": "test"})
    assert first.suspended[0].labels == ("test-resume-label",) and calls == {"getUserInput": 1, "promptAgent": 1}
    result = await run.resume({"answer": 1}, label="test-resume-label")
    assert list(outputs(result)) == ["getUserInput", "promptAgent", "evaluateToneConsistency", "improveResponse", "evaluateImprovedResponse"]
    prompt = result.steps["promptAgent"]
    assert (prompt.output, prompt.input, prompt.suspend_payload) == ({"modelOutput": "test output"}, {"userInput": "test input"}, None)
    assert prompt.resume_payload == {"answer": 1} and prompt.resumed_at is not None and calls["promptAgent"] == 2


@pytest.mark.row("fs-stream-input-kept")
async def test_the_input_is_never_taken_from_the_resume(host: Host) -> None:
    run = await host(Workflow("kept").then(waits("step1", {"result": "resumed"}, payload={})))
    async for _ in run.stream({"original": "input"}):
        pass
    stream = run.resume_stream({"resumed": "data"}, step="step1")
    assert [event async for event in stream][-1].type == "workflow-finish"
    result = await stream.result()
    record = result.steps["step1"]
    assert result.input == record.input == {"original": "input"}
    assert (record.resume_payload, record.output) == ({"resumed": "data"}, {"result": "resumed"})


def summing(given: type[BaseModel] | None, *, least: int = 0) -> Workflow:
    @step(id="resume", resume=given)
    async def resumes(data: dict[str, int], ctx: Context) -> dict[str, int]:
        more = ctx.resume_data.value if ctx.resume_data is not None else 0
        if ctx.resume_data is None or more + data["value"] < least:
            ctx.suspend({"message": f"at {more + data['value']}"})
        return {"value": more + data["value"]}

    return Workflow("summing").then(adds("increment", 1, Counter())).then(resumes).then(gives("final", lambda data: data))


@pytest.mark.row("resume-schema-default")
async def test_defaults_of_the_resume_type(host: Host) -> None:
    class Defaulted(BaseModel):
        value: int = 21

    run = await host(summing(Defaulted))
    assert (await run.start({"value": 0})).status == "suspended"
    result = await run.resume({}, step="resume")
    assert result.status == "success" and result.result == {"value": 22} and result.steps["resume"].resume_payload == {"value": 21}


@pytest.mark.row("resume-invalid-data", "fs-resume-invalid", "fs-resume-invalid-v4")
@pytest.mark.parametrize("bad", [{"number": 2}, {"value": "many"}, None, [], "text"])
async def test_bad_resume_data_is_refused_and_changes_nothing(host: Host, bad: Any) -> None:
    run = await host(summing(Value, least=10))
    assert (await run.start({"value": 0})).status == "suspended"
    with pytest.raises(InvalidInput, match="^Invalid resume data: ") as caught:
        await run.resume(bad, step=["resume"])
    if isinstance(bad, dict):
        assert caught.value.errors()[0]["loc"] == ("value",) and "\n- value: " in str(caught.value)
    record = await run.get()
    assert record is not None and record.status == record.steps["resume"].status == "suspended" and paths(record) == [["resume"]]
    assert (await run.resume({"value": 21}, step=["resume"])).result == {"value": 22}


@pytest.mark.row("cx-resume-after-reject")
async def test_a_refused_resume_does_not_block_the_next(host: Host) -> None:
    from typing import Literal

    class Approved(BaseModel):
        approved: Literal[True]

    run = await host(Workflow("approves").then(waits("approve", "yes", resume=Approved)))
    await run.start({})
    with pytest.raises(InvalidInput):
        await run.resume({"approved": False})
    assert (await run.resume({"approved": True})).result == "yes"


@pytest.mark.row("resume-wrong-step", "fs-wrong-step")
@pytest.mark.parametrize("wrong", ["increment", "final", "nothing", "resume.inner", ("resume", "inner")])
async def test_a_step_that_is_not_suspended_is_refused(host: Host, wrong: Any) -> None:
    run = await host(summing(Value))
    await run.start({"value": 0})
    with pytest.raises(StepNotSuspended, match=r"was not suspended\. Available suspended steps: 'resume'"):
        await run.resume({"value": 2}, step=wrong)
    assert (await run.resume({"value": 21}, step="resume")).result == {"value": 22}


@pytest.mark.row("resume-not-suspended-run", "fs-not-suspended")
@pytest.mark.parametrize("name", [None, "increment", ["increment"]])
async def test_a_finished_run_is_refused(host: Host, name: Any) -> None:
    run = await host(Workflow("finished").then(adds("increment", 1, Counter())).then(gives("final", lambda data: data)))
    assert (await run.start({"value": 0})).status == "success"
    with pytest.raises(RunNotSuspended, match="^This workflow run was not suspended"):
        await run.resume({"value": 2}, step=name)
    record = await run.get()
    assert record is not None and record.status == "success"


@pytest.mark.row("fs-status-from-storage")
async def test_a_handle_of_a_rebuilt_workflow_knows_what_is_stored(noria: Noria, host: Host, calls: Counter[str]) -> None:
    def build() -> Workflow:
        return Workflow("rebuilt").then(waits("suspendStep", lambda _, given: given["resumeMessage"], calls, payload={})).commit()

    run = await host(build(), "fixed-id")
    assert (await run.start({})).status == "suspended"
    other = noria.create_run(build(), "fixed-id")
    record = await other.get()
    assert record is not None and record.status == "suspended"
    result = await other.resume({"resumeMessage": "again"}, step="suspendStep")
    assert result.status == "success" and result.result == "again" and calls == {"suspendStep": 2}


@pytest.mark.row("fs-suspend-data")
async def test_a_step_sees_what_it_suspended_with(host: Host) -> None:
    class Reason(BaseModel):
        reason: str

    @step(id="typed", suspend=Reason)
    async def typed(data: Any, ctx: Context) -> str:
        if ctx.resume_data is None:
            assert ctx.suspend_data is None
            ctx.suspend(Reason(reason="typed"))
        return f"{data}: {ctx.suspend_data.reason}, {ctx.resume_data}"

    @step(id="plain")
    def plain(data: Any, ctx: Context) -> str:
        if ctx.resume_data is None:
            ctx.suspend({"reason": "plain", "n": [1]})
        return f"{data}: {ctx.suspend_data}, {ctx.resume_data}"

    run = await host(Workflow("seen").then(typed).then(plain))
    await run.start("test")
    assert (await run.resume(1)).steps["typed"].output == "test: typed, 1"
    assert (await run.resume(2)).result == "test: typed, 1: {'reason': 'plain', 'n': [1]}, 2"


@pytest.mark.row("fs-suspend-data-missing")
async def test_without_a_suspension_there_is_no_suspend_data(host: Host) -> None:
    @step(id="reads")
    async def reads(data: Any, ctx: Context) -> str:
        return f"{data['value']}: {ctx.suspend_data or 'No suspend data'}"

    assert (await (await host(Workflow("unsuspended").then(reads))).start({"value": "test"})).result == "test: No suspend data"


async def test_a_step_may_suspend_again_and_again(host: Host) -> None:
    @step(id="asks")
    async def asks(data: int, ctx: Context) -> list[Any]:
        so_far = (ctx.suspend_data or []) + ([ctx.resume_data] if ctx.resume_data is not None else [])
        if len(so_far) < data:
            ctx.suspend(so_far, label=f"question-{len(so_far)}")
        return so_far

    run = await host(Workflow("again").then(asks))
    result = await run.start(4)
    for n in range(4):
        assert (result.suspended[0].payload, result.suspended[0].labels) == (list(range(n)), (f"question-{n}",))
        with pytest.raises(StepNotSuspended):
            await run.resume(n, label=f"question-{n + 1}")
        result = await run.resume(n, label=f"question-{n}")
    assert result.result == [0, 1, 2, 3] and result.steps["asks"].resume_payload == 3


async def test_what_is_left_behind_by_suspend_is_kept_as_output(host: Host) -> None:
    @step(id="leaves")
    async def leaves(ctx: Context) -> str:
        if ctx.resume_data is None:
            ctx.suspend({"p": 1}, output={"left": "behind"})
        return "done"

    run = await host(Workflow("leaves").then(leaves))
    record = (await run.start()).steps["leaves"]
    assert (record.status, record.suspend_output, record.output) == ("suspended", {"left": "behind"}, None)
    assert (await run.resume(True)).steps["leaves"].output == "done"


@pytest.mark.row("nd-fga-resume", "nd-fga-resume-no-user", "nd-fga-resume-actor")
@pytest.mark.not_applicable(15, "credentials in the request context are not carried over; NATS accounts and permissions authorize")
def test_authorization_of_a_resume() -> None: ...


@pytest.mark.row("nd-fga-resume-none")
async def test_a_resume_needs_no_provider(noria: Noria, host: Host) -> None:
    @step(id="step1")
    async def step1(ctx: Context) -> Any:
        if ctx.resume_data is None:
            ctx.suspend({"waiting": True})
        return ctx.resource_id

    run = await host(Workflow("tenant").then(step1), resource_id="tenant-1")
    await run.start({})
    result = await noria.create_run("tenant", run.id).resume({"approved": True})
    assert result.status == "success" and result.result == "tenant-1"


async def test_data_that_only_the_worker_can_check_leaves_the_step_suspended(noria: Noria, host: Host) -> None:
    """A client that knows the workflow by its id alone refuses what the type's schema says; what only the type's own code
    can tell is the worker's to refuse, and the run must not die of a typing error."""

    class Even(Value):
        @field_validator("value")
        @classmethod
        def even(cls, value: int) -> int:
            if value % 2:
                raise ValueError("an even number is wanted")
            return value

    run = await host(summing(Even))
    before = await run.start({"value": 0})
    async with Noria.connect(noria.url, namespace=noria.namespace) as stranger:
        with pytest.raises(InvalidInput, match="value"):
            await stranger.create_run("summing", run.id).resume({"value": "many"})
        result = await stranger.create_run("summing", run.id).resume({"value": 21})
        assert result.status == "suspended" and result.suspended == before.suspended and result.steps == before.steps
        assert (await stranger.create_run("summing", run.id).resume({"value": 20})).result == {"value": 21}

"""Suspend and stream, area agent. Noria has no models: an agent is a plain step that writes its chunks and gives its text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from noria import Context, Noria, RunResult, Step, Workflow, from_input, from_step, step, value
from tests.conformance.conftest import Run
from tests.conformance.doubles import drained, gives, outputs, timed, told

ASKED = {"prompt1": "Capital of France, just the name", "prompt2": "Capital of UK, just the name"}
NEWER = ["start", "step-start", "text-start", "text-delta", "text-start", "step-finish", "finish"]
OLDER = ["step-start", "text-delta", "step-finish", "finish"]
USED = {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30}


class Article(BaseModel):
    title: str
    summary: str
    tags: list[str]


def agent(id: str, text: str, chunks: list[str] = NEWER, **options: Any) -> Step:
    """Writes chunks as a model streams them; a newer one's last chunk tells its usage."""

    async def answer(data: dict[str, str], ctx: Context) -> dict[str, str]:
        for kind in chunks:
            more = {"text": text} if kind == "text-delta" else {"usage": USED} if kind == "finish" and chunks is NEWER else {}
            await ctx.write({"type": kind, **more})
        return {"text": text}

    return step(answer, id=id, **options)


def chained(chunks: list[str] = NEWER) -> Workflow:
    flow = Workflow("agents").then(gives("start", lambda data: data))
    for n, text in ((1, "Paris"), (2, "London")):
        flow = flow.map({"prompt": from_step("start", f"prompt{n}")}, id=f"map{n}")
        flow = flow.then(agent(f"test-agent-{n}", text, chunks, description=f"Agent {n}"))
    return flow.commit()


def answered(result: RunResult) -> None:
    found = outputs(result)
    assert (found["test-agent-1"], found["test-agent-2"]) == ({"text": "Paris"}, {"text": "London"})
    prompts = [result.steps[f"test-agent-{n}"].input for n in (1, 2)]
    assert prompts == [{"prompt": ASKED["prompt1"]}, {"prompt": ASKED["prompt2"]}]
    timed(result, "test-agent-1", "test-agent-2")


@pytest.mark.row("agent-options", "agent-options-callbacks")
async def test_options_given_when_an_agent_is_made_a_step_reach_the_model(run: Run) -> None:
    seen: list[Any] = []

    def model(**call: Any) -> str:
        seen.append(call)
        return "Response"

    def as_step(instructions: str, on_chunk: Callable[[str], None], on_finish: Callable[[], None], **options: Any) -> Step:
        async def answer(data: dict[str, str]) -> dict[str, str]:
            text = model(system=instructions, prompt=data["prompt"], **options)
            on_chunk(text)
            on_finish()
            return {"text": text}

        return step(answer, id="agent", metadata={"component": "AGENT"})

    told: list[str] = []
    wrapped = as_step("overridden instructions", told.append, lambda: told.append("finished"), temperature=0.7, max_steps=5)
    result = await run(Workflow("options").map({"prompt": value("test")}).then(wrapped), {"prompt": "Test prompt"})
    assert result.result == {"text": "Response"} and told == ["Response", "finished"]
    assert seen == [{"system": "overridden instructions", "prompt": "test", "temperature": 0.7, "max_steps": 5}]


@pytest.mark.row("agent-stream-v2", "fs-agent-stream-v2", "fs-agent-stream-v1")
@pytest.mark.parametrize("chunks", [NEWER, OLDER])
async def test_chunks_arrive_as_step_outputs_and_usage_is_summed_up(noria: Noria, chunks: list[str]) -> None:
    flow = chained(chunks)
    async with noria.worker(flow, lease=5):
        stream = noria.create_run(flow, "test-run-id").stream(ASKED)
        events, result = await drained(stream), await stream.result()
    answered(result)
    assert [data["output"]["type"] for data in told(events, "step-output")] == chunks * 2
    assert {e.step for e in events if e.type == "workflow-step-output"} == {"test-agent-1", "test-agent-2"}
    others = [(e.type.removeprefix("workflow-"), e.step) for e in events if e.type != "workflow-step-output"]
    steps = ["start", "map1", "test-agent-1", "map2", "test-agent-2"]
    assert others == [("start", None), *((kind, id) for id in steps for kind in ("step-start", "step-result")), ("finish", None)]
    assert events[0].run_id == events[-1].run_id == "test-run-id" and all(d["status"] == "success" for d in told(events, "step-result"))
    factor = 2 if chunks is NEWER else 0
    assert events[-1].data["usage"] == {kind: factor * tokens for kind, tokens in USED.items()}


@pytest.mark.row("agent-nonstream", "fs-agent-start", "agentstep-app")
async def test_agent_steps_without_a_stream(run: Run) -> None:
    flow = chained()
    answered(await run(flow, ASKED))
    described = flow.units["test-agent-1"]
    assert isinstance(described, Step) and described.description == "Agent 1"


@pytest.mark.row("agent-structured-output", "fs-structured")
async def test_structured_output_is_the_next_steps_input(run: Run) -> None:
    @step(id="article-agent")
    async def writes(data: dict[str, str]) -> Article:
        return Article.model_validate_json('{"title": "T", "summary": "S", "tags": ["a", "b"]}')

    @step(id="process-article")
    async def process(article: Article) -> dict[str, Any]:
        return {"processed": True, "tagCount": len(article.tags)}

    result = await run(Workflow("structured").then(writes).then(process), {"prompt": "Generate an article about testing"})
    assert result.result == {"processed": True, "tagCount": 2}


@pytest.mark.row("agentlike-single", "agentlike-options")
async def test_a_plain_step_plays_an_agent(run: Run) -> None:
    options = {"temperature": 0.7, "maxTokens": 1000, "instructions": "Be helpful"}
    echo = gives("agent-step", lambda d: {"response": "Processed: " + d["prompt"], **{k: d[k] for k in options if k in d}})
    assert (await run(Workflow("single").then(echo), {"prompt": "Hello, world!"})).result == {"response": "Processed: Hello, world!"}
    assert (await run(Workflow("echoes").then(echo), {"prompt": "p", **options})).result == {"response": "Processed: p", **options}


@pytest.mark.row("agentlike-error", "fs-error-agent-stream")
async def test_an_error_of_an_agents_model(run: Run) -> None:
    class ModelError(Exception):
        def __init__(self) -> None:
            super().__init__("LLM API rate limit exceeded")
            self.status_code, self.response_headers, self.request_id, self.is_retryable = 503, {"retry-after": "1"}, "req-1", True

    @step(id="agent-step")
    async def breaks(data: Any, ctx: Context) -> None:
        await ctx.write({"type": "start"})
        raise ModelError

    result = await run(Workflow("failing").then(gives("prepare", lambda data: data)).then(breaks), {"input": "test input"})
    error = result.error
    assert result.status == result.steps["agent-step"].status == "failed" and result.steps["prepare"].status == "success"
    assert error is not None and (error.type, error.message) == ("ModelError", "LLM API rate limit exceeded")
    expected = {"status_code": 503, "response_headers": {"retry-after": "1"}, "request_id": "req-1", "is_retryable": True}
    assert error.attributes == expected and result.steps["agent-step"].error == error


@pytest.mark.row("agentlike-parallel", "fs-agent-parallel")
async def test_two_nested_agents_in_parallel(run: Run, calls: Counter[str]) -> None:
    def nested(id: str, text: str) -> Workflow:
        flow = Workflow(id).then(gives("start", lambda data: data)).map({"prompt": from_step("start", "prompt")})
        return flow.then(agent("agent", text))

    both = (nested("nested-workflow", "Paris"), nested("nested-workflow-2", "London"))
    final = gives("finalStep", lambda data: {"combined": " ".join(out["text"] for out in data.values())}, calls)
    flow = Workflow("parallel").then(gives("start", lambda data: data)).map({"prompt": from_step("start", "prompt1")}).parallel(*both)
    result = await run(flow.then(final), {"prompt1": "Hello", "prompt2": "World"})
    assert calls == {"finalStep": 1} and result.result == {"combined": "Paris London"}
    assert result.steps["finalStep"].input == {"nested-workflow": {"text": "Paris"}, "nested-workflow-2": {"text": "London"}}
    for id, text in (("nested-workflow", "Paris"), ("nested-workflow-2", "London")):
        assert (result.steps[id].status, result.steps[id].output, result.steps[id].input) == ("success", {"text": text}, {"prompt": "Hello"})
        timed(result, id)


@pytest.mark.row("agentlike-nested", "agentlike-deep")
async def test_agents_in_nested_workflows(run: Run) -> None:
    deep = Workflow("inner").then(gives("deep-agent-step", lambda data: {"text": f"Deep Agent Response to {data['question']}: Paris"}))
    middle = Workflow("middle").then(gives("middle-step", lambda data: data)).then(deep)
    flow = Workflow("outer").then(gives("prep", lambda data: data)).then(middle)
    result = await run(flow.then(gives("post", lambda data: "Final: " + data["text"])), {"question": "What is the capital of France?"})
    assert "Final:" in result.result and "Deep Agent Response" in result.result and "PARIS" in result.result.upper()


@pytest.mark.row("agentstep-app-nested")
async def test_one_agent_step_and_its_clone_in_a_nested_workflow(run: Run) -> None:
    texts = {"test-agent-1": "Paris", "test-agent-2": "London"}

    @step(id="agent-step")
    async def asks(data: dict[str, str], ctx: Context) -> dict[str, str]:
        return {"text": texts[data["agentName"]]}

    @step(id="final-step")
    async def joins(ctx: Context) -> dict[str, str]:
        return {"text": " ".join(ctx.step_result(id)["text"] for id in ("agent-step", "agent-step-2"))}

    nested = Workflow("nested-workflow").map({"agentName": value("test-agent-1"), "prompt": from_input("prompt1")}).then(asks)
    nested = nested.map({"agentName": value("test-agent-2"), "prompt": from_input("prompt2")}).then(asks.clone(id="agent-step-2")).then(joins)
    record = (await run(Workflow("parent").then(nested), ASKED)).steps["nested-workflow"]
    assert (record.status, record.output, record.input) == ("success", {"text": "Paris London"}, ASKED) and record.started_at and record.ended_at


@pytest.mark.row("nd-workflow-tool", "nd-workflow-tool-no-schema", "nd-workflow-tool-openai")
@pytest.mark.parametrize("typed", [True, False])
async def test_a_workflow_is_an_agents_tool(noria: Noria, typed: bool) -> None:
    """A step that calls a tool runs another workflow through ctx.client."""
    seen: list[Any] = []

    class Task(BaseModel):
        taskId: str

    def fetch(data: Any) -> dict[str, str]:
        seen.append(data)
        return {"result": "processed-" + data["taskId"]}

    task = Workflow("task", **({"input": Task} if typed else {})).then(gives("fetch-task", fetch)).commit()

    @step(id="agent")
    async def calls_tool(data: dict[str, str], ctx: Context) -> Any:
        call = {"inputData": {"taskId": "test-task-123"}, "suspendedToolRunId": None, "resumeData": None}
        return (await ctx.client.run("task", call["inputData"], timeout=10)).unwrap()

    flow = Workflow("with-tools").then(calls_tool).commit()
    async with noria.worker(flow, task, lease=5):
        stream = noria.create_run(flow).stream({"prompt": "fetch it"})
        await drained(stream)
        assert (await stream.result()).result == {"result": "processed-test-task-123"} and seen == [{"taskId": "test-task-123"}]

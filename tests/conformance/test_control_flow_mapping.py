"""Control flow, area variables: what data a step sees, mappings, templates. A row's `mapping_…` is `mapping-<n>`."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from noria import Context, DefinitionError, Step, Workflow, computed, from_context, from_input, from_step, step, template, value
from tests.conformance.conftest import Run
from tests.conformance.doubles import gives, outputs

STRINGY = {"a": "A", "b": "B", "list": [{"name": "first"}, {"name": "second"}]}
SUCCESS = {"result": "success"}


def pair() -> Step:
    """step2(test, test2) -> (result, second)."""
    return gives("step2", lambda data: {"result": data["test"], "second": data["test2"]})


def names() -> Step:
    return gives(
        "step2", lambda data: {"result": ", ".join(c["name"] for c in data["candidates"]) or "none", "second": data["iteration"]}
    )


async def mapped(run: Run, output: Any, mapping: dict[str, Any]) -> Any:
    """The output of a mapping after a step `stringy` that gives `output`."""
    result = await run(Workflow("templates").then(gives("stringy", output)).map(mapping), {})
    assert result.status == "success", result.error
    assert list(result.steps) == ["stringy", "mapping-1"] and result.result == result.steps["mapping-1"].output
    return result.result


@pytest.mark.row("variables-trigger-data")
async def test_each_output_feeds_the_next(run: Run) -> None:
    seen: list[Any] = []

    def work(data: Any) -> Any:
        seen.append(data)
        return SUCCESS

    result = await run(Workflow("chain").then(gives("step1", work)).then(gives("step2", work)), {"input_data": "test-input"})
    assert outputs(result) == {"step1": SUCCESS, "step2": SUCCESS} and seen == [{"input_data": "test-input"}, SUCCESS]


@pytest.mark.row("variables-get-step-result")
async def test_step_result_by_object_and_id(run: Run, calls: Counter[str]) -> None:
    first, ghost = gives("step1", {"value": "step1-result"}, calls), gives("non-executed-step", 1)
    seen: list[Any] = []

    @step(id="step2")
    async def second(ctx: Context) -> dict[str, str]:
        seen.extend([ctx.step_result(first), ctx.step_result("step1"), ctx.step_result(ghost), ctx.step_result(ghost, 7)])
        return {"value": "step2-result"}

    result = await run(Workflow("lookup").then(first).then(second), {"input_value": "test-input"})
    assert calls == {"step1": 1} and outputs(result)["step1"] == {"value": "step1-result"}
    assert seen == [{"value": "step1-result"}, {"value": "step1-result"}, None, 7]


@pytest.mark.row("variables-input-in-step-context")
async def test_the_context_carries_the_input(run: Run) -> None:
    seen: list[Any] = []

    @step(id="step1")
    async def first(ctx: Context) -> Any:
        seen.append((ctx.input, ctx.step_id, ctx.workflow_id))
        return SUCCESS

    result = await run(Workflow("context").then(first), {"input_data": "test-input"})
    assert result.status == "success" and seen == [({"input_data": "test-input"}, "step1", "context")]


@pytest.mark.row("variables-get-init-data")
async def test_init_data_is_the_workflow_input(run: Run) -> None:
    seen: list[Any] = []

    @step(id="step1")
    async def first(data: dict[str, str]) -> Any:
        seen.append(data)
        return SUCCESS

    @step(id="step2")
    async def second(ctx: Context) -> Any:
        return {"result": ctx.init_data}

    result = await run(Workflow("init").then(first).then(second), {"cool": "test-input"})
    assert seen == [{"cool": "test-input"}] and outputs(result)["step2"] == {"result": {"cool": "test-input"}}


@pytest.mark.row("variables-map-step-path")
async def test_a_mapping_reads_a_dotted_path(run: Run) -> None:
    first, seen = gives("step1", {"nested": {"value": "step1-data"}}), []

    def keep(data: Any) -> Any:
        seen.append(data)
        return SUCCESS

    flow = Workflow("paths").then(first).map({"previous_value": from_step(first, "nested.value")}).then(gives("step2", keep))
    assert (await run(flow, {})).status == "success" and seen == [{"previous_value": "step1-data"}]


@pytest.mark.row("variables-string-output")
async def test_a_bare_string_is_the_next_input(run: Run) -> None:
    @step(id="step2")
    async def second(data: str) -> Any:
        return {"result": "success", "input": data}

    result = await run(Workflow("strings").then(gives("step1", "step1-data", output=str)).then(second), {})
    assert outputs(result) == {"step1": "step1-data", "step2": {"result": "success", "input": "step1-data"}}


@pytest.mark.row("variables-array-output")
async def test_a_list_is_the_next_input(run: Run) -> None:
    @step(id="step2")
    async def second(data: list[dict[str, str]]) -> Any:
        return {"result": "success", "input": data}

    result = await run(Workflow("lists").then(gives("step1", [{"str": "step1-data"}])).then(second), {})
    assert outputs(result) == {"step1": [{"str": "step1-data"}], "step2": {"result": "success", "input": [{"str": "step1-data"}]}}


@pytest.mark.row("variables-map-constants")
async def test_constants_may_be_falsy(run: Run) -> None:
    flow = Workflow("constants").then(gives("step1", SUCCESS)).map({"candidates": value([]), "iteration": value(0)}).then(names())
    assert outputs(await run(flow, {"cool": "test-input"}))["step2"] == {"result": "none", "second": 0}


@pytest.mark.row("variables-map-function")
async def test_a_mapping_may_be_one_async_function(run: Run) -> None:
    async def mapping(prev: Any, ctx: Context) -> Any:
        assert ctx.init_data == {"cool": "test-input"}
        return {"candidates": [{"name": prev["result"]}, {"name": "hello"}], "iteration": 0}

    flow = Workflow("functions").then(gives("step1", SUCCESS)).map(mapping).then(names())
    assert outputs(await run(flow, {"cool": "test-input"}))["step2"] == {"result": "success, hello", "second": 0}


@pytest.mark.row("variables-map-init-and-request-context")
async def test_a_mapping_reads_input_and_request_context(run: Run) -> None:
    mapping = {"test": from_input("cool"), "test2": from_context("life")}
    flow = Workflow("sources").then(gives("step1", SUCCESS)).map(mapping).then(pair())
    result = await run(flow, {"cool": "test-input"}, request_context={"life": 42})
    assert result.steps["step1"].input == {"cool": "test-input"}
    assert outputs(result)["step2"] == {"result": "test-input", "second": 42}


def with_functions(id: str | None) -> Workflow:
    async def hello(prev: Any) -> str:
        return "Hello " + prev["result"]

    async def first_result(_: Any, ctx: Context) -> str:
        return ctx.step_result("step1")["result"]

    second = pair()
    return (
        Workflow("entry-functions").then(gives("step1", SUCCESS))
        .map({"test": from_input("cool"), "test2": computed(hello)}, id=id)
        .then(second)
        .map({"result": from_step(second, "result"), "second": computed(first_result)})
    )  # fmt: skip


@pytest.mark.row("variables-map-entry-functions")
async def test_single_entries_may_be_functions(run: Run) -> None:
    result = await run(with_functions(None), {"cool": "test-input"})
    assert result.status == "success" and outputs(result)["step2"] == {"result": "test-input", "second": "Hello success"}
    assert result.result == {"result": "test-input", "second": "success"}
    assert list(result.steps) == ["step1", "mapping-1", "step2", "mapping-3"]


@pytest.mark.row("variables-map-custom-step-id")
async def test_a_mapping_may_have_an_id(run: Run) -> None:
    result = await run(with_functions("step1-mapping"), {"cool": "test-input"})
    assert outputs(result)["step1-mapping"] == {"test": "test-input", "test2": "Hello success"}
    assert outputs(result)["step2"] == {"result": "test-input", "second": "Hello success"}
    assert result.result == {"result": "test-input", "second": "success"}


@pytest.mark.row("variables-template-input-data")
async def test_a_template_reads_the_previous_output(run: Run) -> None:
    mapping = {"summary": template("${prev.name} is ${prev.temp}°C")}
    assert await mapped(run, {"name": "Helsinki", "temp": 22}, mapping) == {"summary": "Helsinki is 22°C"}


@pytest.mark.row("variables-template-namespaces")
async def test_a_template_mixes_scopes(run: Run) -> None:
    @step(id="step1")
    async def first(ctx: Context) -> Any:
        ctx.set_state({"phase": "analyzing"})
        return {"tone": "cheerful"}

    line = template("City=${input.city} tone=${prev.tone} phase=${state.phase} user=${context.userId}")
    flow = Workflow("scopes").then(first).map({"line": line})
    result = await run(flow, {"city": "Helsinki"}, request_context={"userId": "tony"})
    assert outputs(result)["mapping-1"] == {"line": "City=Helsinki tone=cheerful phase=analyzing user=tony"}


@pytest.mark.row("variables-template-object-fails")
async def test_a_template_renders_an_object_as_json(run: Run) -> None:
    """api.md, section 3, says "objects and lists as JSON", against the row, where they fail; api.md is the contract."""
    rendered = await mapped(run, {"obj": {"a": 1, "b": 2}}, {"bad": template("${prev.obj}")})
    assert json.loads(rendered["bad"]) == {"a": 1, "b": 2}


@pytest.mark.row("variables-template-missing-step-fails")
async def test_a_template_of_a_step_without_result_fails(run: Run) -> None:
    """The step exists and its arm is not taken: an id that no step has may be refused at commit."""
    arms = Workflow("missing").then(gives("step1", {"x": 1})).branch((lambda: False, gives("nonexistent", {"x": 2})))
    result = await run(arms.map({"bad": template("${steps.nonexistent.x}")}), {})
    assert result.status == "failed" and result.error is not None and "nonexistent" in result.error.message
    assert result.steps["step1"].status == "success" and "nonexistent" not in result.steps


@pytest.mark.row("variables-template-empty")
async def test_an_empty_template(run: Run) -> None:
    assert await mapped(run, STRINGY, {"s": template("")}) == {"s": ""}


@pytest.mark.row("variables-template-literal")
async def test_a_template_without_placeholders(run: Run) -> None:
    assert await mapped(run, STRINGY, {"s": template("literal-only")}) == {"s": "literal-only"}


@pytest.mark.row("variables-template-adjacent")
async def test_placeholders_side_by_side_first_and_last(run: Run) -> None:
    texts = {"adjacent": "${prev.a}${prev.b}", "at_start": "${prev.a} suffix", "at_end": "prefix ${prev.a}"}
    rendered = await mapped(run, STRINGY, {key: template(text) for key, text in texts.items()})
    assert rendered == {"adjacent": "AB", "at_start": "A suffix", "at_end": "prefix A"}


@pytest.mark.row("variables-template-numeric-path")
async def test_a_number_indexes_a_list(run: Run) -> None:
    assert await mapped(run, STRINGY, {"s": template("${prev.list.0.name}")}) == {"s": "first"}


@pytest.mark.row("variables-template-multiline")
async def test_a_template_keeps_newlines(run: Run) -> None:
    assert await mapped(run, STRINGY, {"s": template("line1=${prev.a}\nline2=${prev.b}")}) == {"s": "line1=A\nline2=B"}


@pytest.mark.row("variables-template-long")
async def test_a_long_template_is_rendered_in_full(run: Run) -> None:
    assert await mapped(run, STRINGY, {"s": template("lorem " * 200 + "value=${prev.a}")}) == {"s": "lorem " * 200 + "value=A"}


@pytest.mark.row("variables-template-define-whitespace")
def test_a_padded_placeholder_is_refused_when_written() -> None:
    with pytest.raises(DefinitionError):
        template("${ prev.x }")


@pytest.mark.row("variables-template-define-empty")
def test_an_empty_placeholder_is_refused_when_written() -> None:
    with pytest.raises(DefinitionError):
        template("a${}b")


@pytest.mark.row("variables-template-define-unknown-namespace")
def test_an_unknown_scope_is_refused_when_written() -> None:
    with pytest.raises(DefinitionError, match="nope"):
        template("${nope.x}")


@pytest.mark.row("variables-template-define-bare-step")
async def test_a_bare_step_placeholder_is_the_whole_output(run: Run) -> None:
    flow = Workflow("bare").then(gives("step-a", "scalar")).map({"key": template("${steps.step-a}")})
    assert (await run(flow, {})).result == {"key": "scalar"}

"""Control flow, areas schema and errors."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from dataclasses import asdict
from typing import Any

import pytest
from pydantic import BaseModel

from noria import InvalidInput, Noria, NoriaError, RunRecord, Workflow, from_step
from tests.conformance.conftest import Run
from tests.conformance.doubles import failed, fails, gives, outputs, timed

BROKEN = "Step execution failed"


class Inner(BaseModel):
    value: int


class Outer(BaseModel):
    required: str
    nested: Inner


class Defaulted(BaseModel):
    defaultedValue: str = "default-value"


class Subset(BaseModel):
    value1: str


class Start(BaseModel):
    start: str


class Text(BaseModel):
    value: str


class Two(BaseModel):
    requiredField: str
    numberField: int


@pytest.mark.row("schema-invalid-workflow-input-nested")
async def test_bad_workflow_input_raises(run: Run, calls: Counter[str]) -> None:
    flow = Workflow("typed", input=Outer).then(gives("step1", {"result": "success"}, calls, input=Outer))
    with pytest.raises(InvalidInput, match=r"Invalid input data: [\s\S]*- nested\.value: ") as caught:
        await run(flow, {"required": "test", "nested": {"value": "not-a-number"}})
    assert [e["loc"] for e in caught.value.errors()] == [("nested", "value")] and not calls


@pytest.mark.row("schema-step-input-default")
async def test_defaults_fill_what_is_missing(run: Run) -> None:
    second = gives("step2", lambda data: {"result": data["defaultedValue"] + "-processed"}, input=Defaulted)
    result = await run(Workflow("defaults").then(gives("step1", {"someValue": "test"})).then(second), {})
    assert result.status == "success" and outputs(result)["step2"] == {"result": "default-value-processed"}
    assert result.steps["step2"].input == {"defaultedValue": "default-value"}


@pytest.mark.row("schema-subset-input")
async def test_a_part_of_the_output_is_enough(run: Run) -> None:
    second = gives("step2", lambda data: {"result": data["value1"] + "-processed"}, input=Subset)
    flow = Workflow("subset").then(gives("step1", {f"value{n}": f"test{n}" for n in (1, 2, 3)})).then(second)
    result = await run(flow, {})
    assert result.status == "success" and outputs(result)["step2"] == {"result": "test1-processed"}


@pytest.mark.row("schema-invalid-step-input-after-map")
async def test_a_mapping_that_does_not_fit_fails_the_run(run: Run, calls: Counter[str]) -> None:
    first, second = gives("step1", lambda data: {"start": data["start"]}), gives("step2", {}, calls, input=Start)
    result = await run(Workflow("unfit").then(first).map(lambda prev: {"start": prev["start"]}).then(second), {"start": 2})
    failed(result, "step2", "Step input validation failed")
    assert result.error is not None and result.error.type == "InvalidInput" and "- start: " in result.error.message and not calls


@pytest.mark.row("schema-invalid-nested-workflow-input")
async def test_a_nested_workflow_that_does_not_fit_fails_the_run(run: Run, calls: Counter[str]) -> None:
    nested = Workflow("schema-nested-inner", input=Text).then(gives("inner-step", {}, calls, input=Text))
    result = await run(Workflow("outer").then(gives("outer-step", lambda data: {"value": data["num"]})).then(nested), {"num": 42})
    failed(result, "schema-nested-inner", "- value: ")
    assert result.error is not None and result.error.type == "InvalidInput" and not calls


@pytest.mark.row("schema-validation-error-cause")
async def test_the_cause_is_the_validation_error(run: Run) -> None:
    result = await run(Workflow("causes").then(gives("step1", {}, input=Two)), {})
    failed(result, "step1", "Step input validation failed")
    error = result.error
    assert error is not None and "- requiredField: " in error.message and "- numberField: " in error.message
    assert error.cause is not None and error.cause.type == "ValidationError"
    assert "requiredField" in error.cause.message and "numberField" in error.cause.message


@pytest.mark.row("schema-removed-wait-for-event")
def test_there_is_no_wait_for_event() -> None:
    """Difference 15; the row matters only to a port that has the name."""
    assert not hasattr(Workflow, "wait_for_event")


@pytest.mark.row("errors-step-throws")
async def test_a_raising_step_fails_the_run(run: Run) -> None:
    result = await run(Workflow("raises").then(fails("step1", BROKEN)), {})
    failed(result, "step1", BROKEN)
    timed(result, "step1")
    assert result.input == result.steps["step1"].input == {} and result.result is None


@pytest.mark.row("errors-mapping-then-void-step")
async def test_a_step_may_return_nothing(run: Run, calls: Counter[str]) -> None:
    first = gives("step1", {"data": "success"})
    flow = Workflow("void").then(first).map({"data": from_step(first, "data")}).then(gives("step2", None, calls))
    result = await run(flow, {})
    assert outputs(result) == {"step1": {"data": "success"}, "mapping-1": {"data": "success"}, "step2": None}
    timed(result, "step1", "step2")
    assert result.steps["step1"].input == {} and result.steps["step2"].input == {"data": "success"} and calls == {"step2": 1}


@pytest.mark.row("errors-parallel-branch")
async def test_the_sibling_of_a_failing_member_finishes(run: Run, calls: Counter[str]) -> None:
    flow = Workflow("siblings").parallel(gives("step1", {}), fails("step2", BROKEN)).then(gives("step3", {}, calls))
    result = await run(flow, {})
    failed(result, "step2", BROKEN)
    timed(result, "step1", "step2")
    assert result.steps["step1"].status == "success" and list(result.steps) == ["step1", "step2"] and not calls
    assert result.steps["step1"].input == result.steps["step2"].input == {}


class Detailed(Exception):
    def __init__(self, message: str, **attributes: Any) -> None:
        super().__init__(message)
        vars(self).update(attributes)


def raises(error: Exception) -> Any:
    def work(_: Any) -> Any:
        raise error

    return gives("failing-step", work)


@pytest.mark.row("errors-propagate-to-run")
async def test_attributes_travel_with_the_error(run: Run) -> None:
    error = Detailed("Step failed with details", code="STEP_FAILURE", details={"reason": "test failure"})
    result = await run(Workflow("details").then(raises(error)), {})
    failed(result, "failing-step", "Step failed with details")
    info = result.steps["failing-step"].error
    assert info is not None and info.type == "Detailed"
    assert info.attributes == {"code": "STEP_FAILURE", "details": {"reason": "test failure"}}


@pytest.mark.row("errors-nested-workflow")
async def test_a_failure_inside_surfaces_on_the_nested_step(run: Run) -> None:
    nested = Workflow("error-nested-inner-workflow").parallel(gives("step1", {}), fails("step2", BROKEN)).then(gives("step3", {}))
    result = await run(Workflow("outer").then(nested), {})
    failed(result, nested.id, BROKEN)
    timed(result, nested.id)
    assert list(result.steps) == [nested.id] and result.steps[nested.id].input == {}


async def stored(noria: Noria, run: Run, error: Exception) -> RunRecord:
    flow = Workflow("stored").then(raises(error))
    result = await run(flow, {}, run_id="stored-1")
    assert result.status == "failed"
    record = await noria.runs.get("stored-1", flow)
    assert record is not None and record.status == record.steps["failing-step"].status == "failed"
    info = record.steps["failing-step"].error
    assert info is not None and info.stack is None and not json.loads(json.dumps(asdict(info)))["stack"]
    return record


@pytest.mark.row("errors-storage-round-trip")
async def test_a_stored_error_keeps_its_attributes(noria: Noria, run: Run) -> None:
    record = await stored(noria, run, Detailed("Test error for storage round-trip", statusCode=500, errorCode="INTERNAL_ERROR"))
    info = record.steps["failing-step"].error
    assert info is not None and (info.type, info.message) == ("Detailed", "Test error for storage round-trip")
    assert info.attributes == {"statusCode": 500, "errorCode": "INTERNAL_ERROR"}


@pytest.mark.row("errors-snapshot-framework-error")
async def test_a_stored_error_of_the_framework(noria: Noria, run: Run) -> None:
    error = NoriaError("Step execution failed.")
    vars(error).update(id="VALIDATION_ERROR", details={"field": "test"})
    info = (await stored(noria, run, error)).steps["failing-step"].error
    assert info is not None and (info.type, info.message) == ("NoriaError", "Step execution failed.")
    assert info.attributes == {"id": "VALIDATION_ERROR", "details": {"field": "test"}}


@pytest.mark.row("errors-logged")
async def test_a_failure_is_logged_with_the_step_id(noria: Noria, caplog: pytest.LogCaptureFixture) -> None:
    flow = Workflow("logged").then(fails("failing-step", "Step error for logger test"))
    with caplog.at_level(logging.DEBUG):
        async with noria.worker(flow, lease=5):
            assert (await noria.run("logged", {}, timeout=20)).status == "failed"
            await asyncio.sleep(0)
    assert any(r.levelno >= logging.ERROR and "failing-step" in r.getMessage() for r in caplog.records)


@pytest.mark.row("errors-list-runs-without-host")
async def test_a_workflow_without_a_host_has_no_runs(noria: Noria) -> None:
    page = await noria.runs.list(Workflow("nobody"))
    assert (page.runs, page.total) == ([], 0)

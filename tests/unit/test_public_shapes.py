"""The public API has the names, parameters, defaults and fields that the contract writes down."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from typing import Any

import pytest
from pydantic_core import to_jsonable_python

import noria
from noria import testing
from noria.client.dead import Dead
from noria.client.operations import Infra
from noria.client.runs import Runs, Workflows
from noria.client.schedules import Schedules
from noria.contract.results import run_record, run_result
from noria.contract.values import plain
from noria.machine.state import Tree
from noria.machine.view import view

START = "input=None, *, state=None, request_context=None, per_step=False, timeout=None"
RESUME = "data=None, *, step=None, label=None, index=None, request_context=None, per_step=False"
TRAVEL = "step, *, input=None, resume=None, state=None, context=None, request_context=None, per_step=False"
STEP = "id=None, input=None, output=None, resume=None, suspend=None, state=None, context=None, retry=None, timeout=None"
SIGNATURES: list[tuple[Any, str]] = [
    (noria.step, f"fn=None, *, {STEP}, description=None, metadata=None"),
    (noria.Step.clone, "*, id"),
    (noria.remote_step, "id, *, input=None, output=None, subject=None, sealed=True, **options"),
    (noria.Retry, "attempts=0, delay=0.0, backoff=1.0, max_delay=None, jitter=0.0, non_retryable=()"),
    (noria.Tripwire, "reason, retry=False, metadata=None"),
    (noria.Context.step_result, "step, default=None"),
    (noria.Context.set_state, "changes=None, /, **more"),
    (noria.Context.suspend, "payload=None, *, label=None, output=None"),
    (noria.Context.bail, "result=None"),
    (noria.Context.abort, ""),
    (noria.Context.write, "data"),
    (noria.Context.emit, "type, data=None"),
    (noria.Workflow.parallel, "*units, allow_failure=False, placement='auto'"),
    (noria.Workflow.foreach, "unit, *, concurrency=1, placement='auto'"),
    (noria.Workflow.map, "mapping, *, id=None"),
    (noria.Workflow.clone, "*, id"),
    (noria.value, "x"),
    (noria.from_input, "path='.'"),
    (noria.from_context, "key"),
    (noria.from_state, "path"),
    (noria.computed, "fn"),
    (noria.template, "text"),
    (noria.on_event, "on, stream=None, type=None, source=None, subject=None, when=None, input=None"),
    (noria.Cron, "expression, timezone='UTC', input=None, id=None, overlap='skip'"),
    (noria.Noria.embedded, "store_dir=None, *, namespace='noria', port=None"),
    (noria.Noria.connect, "url=None, *, namespace='noria', creds=None, tls=None, via='streams', codec=None, **nats_options"),
    (noria.Noria.worker, "*workflows, concurrency=100, steps=True, runs=True, lease=30.0, grace=10.0"),
    (noria.Noria.serve, "*workflows, **options"),
    (noria.Noria.run, "workflow, input=None, *, run_id=None, resource_id=None, **options"),
    (noria.Noria.create_run, "workflow, run_id=None, resource_id=None"),
    (noria.Run.start, START),
    (noria.Run.start_async, START),
    (noria.Run.stream, f"{START}, close_on_suspend=True"),
    (noria.Run.observe, "*, close_on_suspend=False"),
    (noria.Run.resume, RESUME),
    (noria.Run.resume_stream, f"{RESUME}, close_on_suspend=True"),
    (noria.Run.fork, TRAVEL.replace("input=None,", "input=None, run_id=None,")),
    (noria.Run.cancel, "*, timeout=30.0"),
    (noria.Run.restart, "*, timeout=30.0"),
    (noria.Run.time_travel, TRAVEL),
    (noria.Run.time_travel_stream, f"{TRAVEL}, close_on_suspend=True"),
    (noria.Run.result, "timeout=None"),
    (noria.Run.get, ""),
    (Runs.get, "run_id, workflow=None, *, nested=True"),
    (Runs.list, "workflow=None, *, status=None, resource_id=None, since=None, until=None, limit=100, offset=0"),
    (Runs.delete, "run_id, workflow=None, *, force=False"),
    (Runs.restart_active, "workflow=None"),
    (Workflows.list, ""),
    (Workflows.get, "id"),
]
STEP_RESULT = "status input output error tripwire suspend_payload resume_payload suspend_output started_at ended_at suspended_at resumed_at"
RESULT = "run_id workflow_id status input result error steps state suspended tripwire started_at ended_at"
FIELDS: list[tuple[Any, str]] = [
    (noria.ErrorInfo, "type message attributes cause stack"),
    (noria.TripwireInfo, "reason retry metadata step"),
    (noria.Suspension, "path payload labels index"),
    (noria.StepResult, f"{STEP_RESULT} attempts iterations"),
    (noria.RunResult, RESULT),
    (noria.RunRecord, f"{RESULT} resource_id request_context created_at updated_at version"),
    (noria.RunPage, "runs total"),
    (noria.RunEvent, "type run_id workflow_id path step time data id sequence"),
]
SEEN = (
    "run_id workflow_id step_id path resource_id attempt recovered iteration index input init_data state resume_data suspend_data "
    "request_context idempotency_key log span client cancelled"
)


@pytest.mark.parametrize(("function", "expected"), SIGNATURES, ids=lambda v: getattr(v, "__qualname__", ""))
def test_signatures(function: Any, expected: str) -> None:
    parameters = [p.replace(annotation=p.empty) for p in inspect.signature(function).parameters.values() if p.name != "self"]
    assert str(inspect.Signature(parameters))[1:-1] == expected


def test_what_a_workflow_takes() -> None:
    """`Retry()` and `Any` have no short form."""
    parameters = inspect.signature(noria.Workflow).parameters
    names = "id input output state context retry validate timeout version on_finish on_error triggers schedule retention description"
    defaults = {name: p.default for name, p in parameters.items() if name != "id"}
    assert list(parameters) == names.split() and defaults.pop("retention").days == 30
    assert (defaults.pop("retry"), defaults.pop("input"), defaults.pop("output")) == (noria.Retry(), Any, Any)
    assert (defaults.pop("validate"), defaults.pop("version"), defaults.pop("triggers")) == (True, "1", ())
    assert set(defaults.values()) == {None}


@pytest.mark.parametrize(("kind", "expected"), FIELDS, ids=lambda v: getattr(v, "__name__", ""))
def test_fields(kind: Any, expected: str) -> None:
    assert [f.name for f in dataclasses.fields(kind)] == expected.split()


def test_what_a_context_shows() -> None:
    known = {*vars(noria.Context), *noria.Context.__annotations__}
    assert set(SEEN.split()) <= known


def test_a_result_is_data_whatever_its_workflow() -> None:
    """It can be handed on: by a step as its output, to another process, into JSON."""
    shown = view(Tree(), "w", "r")
    shown.update(status="success", result="1")
    for made in (run_result(shown, int), run_record(shown, int)):
        assert made.unwrap() == 1 and repr(made).startswith(type(made).__name__)
        for data in (dataclasses.asdict(made), plain(made), to_jsonable_python(made)):
            assert list(data) == [f.name for f in dataclasses.fields(made)]
        assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == made
        assert pickle.loads(pickle.dumps(made)).unwrap() == "1"


def test_everything_public_says_what_it_promises() -> None:
    shown = [getattr(noria, name) for name in noria.__all__]
    shown += [Runs, Workflows, Schedules, Dead, Infra, *(getattr(testing, name) for name in testing.__all__)]
    for each in shown:
        assert each.__doc__ and not each.__doc__.startswith(f"{each.__name__}("), f"{each} has a made-up docstring, or none"
        for name, member in vars(each).items() if inspect.isclass(each) else ():
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            assert name.startswith("_") or not inspect.isfunction(function) or function.__doc__, f"{each.__name__}.{name} has no docstring"

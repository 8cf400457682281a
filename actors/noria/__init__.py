"""Noria: durable workflows on NATS. The door of the package: names only."""

from noria.client.noria import Noria
from noria.client.run import Run
from noria.client.streams import RunStream
from noria.contract.events import RunEvent
from noria.contract.results import ErrorInfo, RunPage, RunRecord, RunResult, RunSummary, StepResult, Suspension, TripwireInfo
from noria.errors import (
    AmbiguousResume,
    BrokerUnavailable,
    DefinitionError,
    DuplicateStep,
    EmptyWorkflow,
    GraphMismatch,
    InvalidInput,
    NonRetryable,
    NoriaError,
    NoWorker,
    RunAlreadyStarted,
    RunCancelled,
    RunFailed,
    RunNotActive,
    RunNotFound,
    RunNotSuspended,
    RunStillActive,
    RunSuspended,
    RunTripped,
    StepNotFound,
    StepNotSuspended,
    StepTimeout,
    Tripwire,
    WorkflowNotCommitted,
    WorkflowNotFound,
)  # fmt: skip
from noria.retry import Retry
from noria.workflow.builder import Workflow
from noria.workflow.context import Context
from noria.workflow.cron import Cron
from noria.workflow.mapping import computed, from_context, from_input, from_state, from_step, template, value
from noria.workflow.steps import Step, remote_step, step
from noria.workflow.triggers import on_event

__all__ = [
    "AmbiguousResume", "BrokerUnavailable", "Context", "Cron", "DefinitionError", "DuplicateStep", "EmptyWorkflow",
    "ErrorInfo", "GraphMismatch", "InvalidInput", "NoWorker", "NonRetryable", "Noria", "NoriaError", "Retry", "Run",
    "RunAlreadyStarted", "RunCancelled", "RunEvent", "RunFailed", "RunNotActive", "RunNotFound", "RunNotSuspended",
    "RunPage", "RunRecord", "RunResult", "RunStillActive", "RunStream", "RunSummary", "RunSuspended", "RunTripped",
    "Step", "StepNotFound", "StepNotSuspended", "StepResult", "StepTimeout", "Suspension", "Tripwire", "TripwireInfo",
    "Workflow", "WorkflowNotCommitted", "WorkflowNotFound", "computed", "from_context", "from_input", "from_state",
    "from_step", "on_event", "remote_step", "step", "template", "value",
]  # fmt: skip

"""What can go wrong, as a small tree of decisions.

NoriaError
├── DefinitionError              the workflow is written wrongly: fix the code
│   ├── EmptyWorkflow            no entry
│   ├── DuplicateStep            two units share an id
│   ├── WorkflowNotCommitted     commit() it or register it with a worker
│   └── GraphMismatch            a stored run does not fit this version of the graph
├── NewerFormat                  written by a newer Noria: upgrade, or leave it to who can read it
├── ValueUnavailable             what is stored cannot be had: its key, or what lay outside the log, is not there
├── LimitExceeded                a value of limits.py: make less of it
├── InvalidInput (ValueError)    data does not fit a declared type: fix the data
├── RunAlreadyStarted            the run id is taken: choose another or use the run
├── RunNotFound, WorkflowNotFound, StepNotFound
├── RunNotSuspended, StepNotSuspended, AmbiguousResume      a resume that has no target
├── RunStillActive, RunNotActive                            the run is not in the state that the call needs
├── RunFailed, RunSuspended, RunCancelled, RunTripped       raised by RunResult.unwrap()
├── NonRetryable                 raised by a step: no further tries
├── Tripwire                     raised by a step: ends the run with status tripwire
├── StepTimeout                  a step or workflow took longer than its timeout
├── NoWorker                     nobody hosts the workflow: start a worker
├── NotPermitted               the NATS user may not do this: connect as another role
└── BrokerUnavailable            NATS does not answer: try again
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError


class NoriaError(Exception):
    """Root of everything that Noria raises."""


class DefinitionError(NoriaError):
    """The workflow or step is written wrongly."""


class EmptyWorkflow(DefinitionError):
    """A workflow without any entry."""


class DuplicateStep(DefinitionError):
    """Two units of one workflow share an id."""


class WorkflowNotCommitted(DefinitionError):
    """A workflow was started that is neither committed nor registered with a worker."""


class GraphMismatch(DefinitionError):
    """A stored run names a place that this version of the graph does not have."""


class NewerFormat(NoriaError):
    """A log, command or record of a format that this version of Noria cannot read."""


class ValueUnavailable(NoriaError):
    """What is stored of a run cannot be had here: sealed with a key that this process lacks, tampered with, or gone though
    the log refers to it. Nobody passes it over: the run waits until it is back, or is deleted with force."""


class LimitExceeded(NoriaError):
    """More than limits.py allows; the message names what, how much, and the limit."""


class InvalidInput(NoriaError, ValueError):
    """Data does not fit the declared type. The cause is the pydantic ValidationError, where there is one."""

    def errors(self) -> list[dict[str, Any]]:
        """The single problems as pydantic reports them; empty when the cause is not a validation."""
        cause = self.__cause__
        return [dict(e) for e in cause.errors()] if isinstance(cause, ValidationError) else []


class RunAlreadyStarted(NoriaError):
    """The run id is taken within its workflow."""


class RunNotFound(NoriaError):
    """No run with this id is known."""


class RunNotSuspended(NoriaError):
    """The run waits for nobody."""


class StepNotSuspended(NoriaError):
    """The named step waits for nobody; the message lists those that do."""


class AmbiguousResume(NoriaError):
    """Several steps are suspended: name one."""


class StepNotFound(NoriaError):
    """The graph has no such step."""


class RunStillActive(NoriaError):
    """The run must have ended or rest for this."""


class RunNotActive(NoriaError):
    """The run is not active."""


class WorkflowNotFound(NoriaError):
    """No worker ever registered this workflow."""


class NonRetryable(NoriaError):
    """Raised by a step to fail without further tries."""


class RunFailed(NoriaError):
    """unwrap() of a run that failed."""


class RunSuspended(NoriaError):
    """unwrap() of a run that is suspended."""


class RunCancelled(NoriaError):
    """unwrap() of a run that was cancelled."""


class RunTripped(NoriaError):
    """unwrap() of a run that ended by a tripwire."""


class Tripwire(NoriaError):
    """Raised by a step to end the run with status `tripwire`.

    `reason` is kept as given, `retry` tells the caller whether another try may help, `metadata` is JSON data.
    """

    def __init__(self, reason: str, retry: bool = False, metadata: Any = None) -> None:
        super().__init__(reason)
        self.reason, self.retry, self.metadata = reason, retry, metadata


class StepTimeout(NoriaError):
    """A step or a workflow took longer than its timeout."""


class NoWorker(NoriaError):
    """No worker hosts the workflow right now. The command stays durable."""


class NotPermitted(NoriaError):
    """NATS refuses this to the user that we are connected as. Nothing happened."""


class BrokerUnavailable(NoriaError):
    """NATS gave no answer in time. What was asked may have happened all the same."""


def choices(names: Sequence[str]) -> str:
    """The available names as a readable list, for messages."""
    return ", ".join(repr(n) for n in names) if names else "none"

"""What a step, condition or mapping function sees."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, NoReturn

from noria.contract.values import plain
from noria.errors import InvalidInput
from noria.limits import MAX_LABELS


class SuspendSignal(BaseException):
    """Raised by `ctx.suspend`."""

    def __init__(self, payload: Any, labels: list[str], output: Any) -> None:
        self.payload, self.labels, self.output = payload, labels, output


class BailSignal(BaseException):
    """Raised by `ctx.bail`."""

    def __init__(self, result: Any) -> None:
        self.result = result


class AbortSignal(BaseException):
    """Raised by `ctx.abort`."""


class Context:
    """What a step, condition or mapping function sees of its run.

    `run_id` is the root's, `path` the actor's place in the tree, `attempt` counts retries from 0, `recovered` says
    that an earlier execution of this very call may have happened, `iteration` counts the rounds completed of a loop,
    `index` is a foreach item's, `resume_data` and `suspend_data` are None on a first call.
    """

    run_id: str
    workflow_id: str
    step_id: str | None
    path: tuple[str, ...]
    resource_id: str | None
    attempt: int
    recovered: bool
    iteration: int
    index: int | None
    input: Any
    resume_data: Any
    suspend_data: Any
    client: Any
    cancelled: asyncio.Event

    def __init__(self) -> None:
        self._patch: dict[str, Any] = {}

    @property
    def init_data(self) -> Any:
        """The input of the innermost workflow, as plain JSON."""
        raise NotImplementedError

    @property
    def state(self) -> Any:
        """The run's state: the declared model, else a dict."""
        raise NotImplementedError

    @property
    def request_context(self) -> MutableMapping[str, Any]:
        """A mapping carried through the run; changes are kept."""
        raise NotImplementedError

    @property
    def idempotency_key(self) -> str:
        """The same for retries and re-executions of one call; different for each round, item and run."""
        raise NotImplementedError

    @property
    def log(self) -> Any:
        """A logger that names the run."""
        raise NotImplementedError

    @property
    def span(self) -> Any:
        """The current OpenTelemetry span."""
        raise NotImplementedError

    def step_result(self, step: Any, default: Any = None) -> Any:
        """The output (plain JSON) of a step that succeeded in the same workflow, else `default`."""
        raise NotImplementedError

    def set_state(self, changes: dict[str, Any] | None = None, /, **more: Any) -> None:
        """Merge top-level keys into the run's state. Seen by this call at once, by everybody else when it succeeded;
        kept when it suspends, dropped when it fails."""
        self._patch.update(plain({**dict(changes or {}), **more}))

    def suspend(self, payload: Any = None, *, label: str | list[str] | None = None, output: Any = None) -> NoReturn:
        """Wait for a resume. Never returns."""
        labels = [label] if isinstance(label, str) else list(label or [])
        if len(labels) > MAX_LABELS:
            raise InvalidInput(f"a suspension has at most {MAX_LABELS} labels, not {len(labels)}")
        raise SuspendSignal(plain(payload), labels, plain(output))

    def bail(self, result: Any = None) -> NoReturn:
        """End the innermost workflow successfully with `result`. Never returns."""
        raise BailSignal(plain(result))

    def abort(self) -> NoReturn:
        """Cancel the whole run. Never returns."""
        raise AbortSignal

    async def write(self, data: Any) -> None:
        """Emit a `workflow-step-output` event. A chunk `{"type": "finish", "usage": {"input_tokens": …, "output_tokens": …,
        "total_tokens": …}}` adds to the usage that the run's `workflow-finish` tells."""
        raise NotImplementedError

    async def emit(self, type: str, data: Any = None) -> None:
        """Emit an event of a type of your own. Raises InvalidInput for one that begins with "workflow-"."""
        raise NotImplementedError

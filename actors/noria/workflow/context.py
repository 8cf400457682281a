"""What a step, condition or mapping function sees."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from noria.contract.values import plain
from noria.errors import InvalidInput
from noria.limits import MAX_LABELS

log = logging.getLogger("noria.step")


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


Signal = TypeVar("Signal", SuspendSignal, BailSignal, AbortSignal)
PASSING = (Exception, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit, SuspendSignal, BailSignal, AbortSignal)


class Context:
    """What a step, condition or mapping function sees of its run.

    `run_id` is the root's, `workflow_id` the innermost workflow's, `path` the actor's place in the tree, `attempt` counts retries
    from 0, `recovered` says that an earlier execution of this very call may have happened (its host died), `index` is that of the
    innermost foreach item around, else None. `input` is what the call got; `resume_data` and `suspend_data` (what it was resumed with,
    and what it had suspended with) are None on a first call. `cancelled` is set when the run is cancelled; `client` is the worker's
    Noria.
    """

    run_id: str
    workflow_id: str
    step_id: str | None
    path: tuple[str, ...]
    resource_id: str | None
    attempt: int
    recovered: bool
    index: int | None
    input: Any
    resume_data: Any
    suspend_data: Any
    client: Any
    cancelled: asyncio.Event

    def __init__(self) -> None:
        self._patch: dict[str, Any] = {}
        self._signal: SuspendSignal | BailSignal | AbortSignal | None = None  # the first one raised

    @property
    def iteration(self) -> int:
        """The rounds completed of the innermost loop around: 0 in its first round, 1 in the condition after that."""
        raise NotImplementedError

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
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that names the run."""
        return logging.LoggerAdapter(log, {"run_id": self.run_id, "workflow": self.workflow_id, "step": self.step_id})

    @property
    def span(self) -> Any:
        """The current OpenTelemetry span."""
        from opentelemetry import trace

        return trace.get_current_span()

    def step_result(self, step: Any, default: Any = None) -> Any:
        """The output (plain JSON) of a step that succeeded in the same workflow, else `default`."""
        raise NotImplementedError

    def set_state(self, changes: dict[str, Any] | None = None, /, **more: Any) -> None:
        """Merge top-level keys into the run's state. Seen by this call at once, by everybody else when it succeeded;
        kept when it suspends, dropped when it fails. Raises InvalidInput for what is not as the state is declared."""
        given = plain({**dict(changes or {}), **more})
        self._check_state(given)
        self._patch.update(given)

    def suspend(self, payload: Any = None, *, label: str | list[str] | None = None, output: Any = None) -> NoReturn:
        """Wait for a resume. Never returns."""
        labels = [label] if isinstance(label, str) else list(label or [])
        if len(labels) > MAX_LABELS:
            raise InvalidInput(f"a suspension has at most {MAX_LABELS} labels, not {len(labels)}")
        raise self._first(SuspendSignal(plain(payload), labels, plain(output)))

    def bail(self, result: Any = None) -> NoReturn:
        """End the innermost workflow successfully with `result`. Never returns."""
        raise self._first(BailSignal(plain(result)))

    def abort(self) -> NoReturn:
        """Cancel the whole run. Never returns."""
        raise self._first(AbortSignal())

    async def write(self, data: Any) -> None:
        """Emit a `workflow-step-output` event. A chunk `{"type": "finish", "usage": {"input_tokens": …, "output_tokens": …,
        "total_tokens": …}}` adds to the usage that the run's `workflow-finish` tells."""
        raise NotImplementedError

    async def emit(self, type: str, data: Any = None) -> None:
        """Emit an event of a type of your own. Raises InvalidInput for one that begins with "workflow-"."""
        given: Any = type
        if not isinstance(given, str) or not given:
            raise InvalidInput(f"ctx.emit({given!r}): an event's type is a text, and not empty")
        if given.startswith("workflow-"):
            raise InvalidInput(f"ctx.emit({given!r}): names that begin with 'workflow-' are the engine's own; choose another")
        await self._emit(given, plain(data))

    async def _emit(self, type: str, data: Any) -> None:
        raise NotImplementedError

    def _first(self, signal: Signal) -> Signal:
        self._signal = self._signal or signal
        return signal

    def _check_state(self, changes: dict[str, Any]) -> None:
        """Raises InvalidInput for changes to the state that do not fit."""


class Heard:
    """Around a call of a user function: what it asked of its context counts, whatever became of the signal on its way out (a
    task group wraps it, a bare `except` swallows it). What is raised and is no Exception must not end the worker."""

    __slots__ = ("context",)

    def __init__(self, context: Context) -> None:
        self.context = context

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        context = self.context
        # handed over: a context that kept it would be kept by its traceback, with all of the run, until the collector looks
        signal, context._signal = context._signal, None  # pyright: ignore[reportPrivateUsage]
        if signal is not None and error is not signal and not isinstance(error, asyncio.CancelledError):
            raise signal
        if error is not None and not isinstance(error, PASSING):
            raise RuntimeError(f"{type(error).__name__}({error}) was raised, which is no Exception") from error

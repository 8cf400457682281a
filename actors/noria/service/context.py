"""What a step sees when it is called from elsewhere: the call's own copy of what there is to know."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from noria.actor.courier import Courier
from noria.contract import calls
from noria.contract.calls import StepCall
from noria.contract.values import plain
from noria.errors import NoriaError
from noria.workflow.builder import Workflow
from noria.workflow.context import Context
from noria.workflow.steps import Step

if TYPE_CHECKING:
    from noria.client.noria import Noria


class CallContext(Context):
    """The context of one call; its changes go back with the reply."""

    def __init__(self, noria: Noria, workflow: Workflow, step: Step, call: StepCall, courier: Courier) -> None:
        super().__init__()
        self._call, self._workflow, self._step, self._courier = call, workflow, step, courier
        self.checks = call.checks and workflow.validate
        self.run_id, self.workflow_id, self.step_id, self.path = call.run_id, call.workflow or workflow.id, step.id, tuple(call.path)
        self.resource_id, self.attempt, self.recovered = call.resource_id, call.attempt, call.recovered
        self.index, self.input, self.resume_data = call.index, call.input, None
        self.suspend_data = step.known_suspend(call.suspend_data) if call.suspend_data is not None else None
        self.client, self.cancelled = noria, asyncio.Event()
        self._context: dict[str, Any] = {k: plain(v) for k, v in call.request_context.items()}

    @property
    def iteration(self) -> int:
        return self._call.iteration

    @property
    def init_data(self) -> Any:
        return plain(self._call.init_data)

    @property
    def idempotency_key(self) -> str:
        return self._call.idempotency_key

    @property
    def request_context(self) -> MutableMapping[str, Any]:
        return self._context

    @property
    def state(self) -> Any:
        values = plain({**self._call.state, **self._patch})
        return self._step.parse_state(values) if self._step.state_type is not None else self._workflow.parse_state(values)

    def _check_state(self, changes: dict[str, Any]) -> None:
        if self.checks:
            declares = self._step if self._step.state else self._workflow
            declares.check_state({**self._call.state, **self._patch, **changes}, changes)

    def step_result(self, step: Any, default: Any = None) -> Any:
        if self._call.results is None:
            raise NoriaError("step_result(): the results before were not sent along: too large, or not known to the caller")
        wanted = step if isinstance(step, str) else step.id
        return plain(self._call.results[wanted]) if wanted in self._call.results else default

    async def write(self, data: Any) -> None:
        await self._tell(calls.Output(data=plain(data)))

    async def _emit(self, type: str, data: Any) -> None:
        await self._tell(calls.Emitted(name=type, data=data))

    async def _tell(self, message: calls.Output | calls.Emitted) -> None:
        if self._call.progress is not None:
            self.client.broker.calls.tell(self._call.progress, await self._courier.close(calls.encode(message), calls.SHOWN_TOLD))

    def changes(self) -> dict[str, Any]:
        """What the call did to state and request context."""
        before = self._call.request_context
        now = {k: plain(v) for k, v in self._context.items()}
        changed = {k: v for k, v in now.items() if k not in before or before[k] != v}
        return {"state": self._patch, "request_context": changed, "request_context_removed": [k for k in before if k not in now]}

"""Triggers in: CloudEvents on `<ns>.trigger.<workflow>` and on the user's own subjects start a run, once per (source, id)."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from noria.contract.values import plain
from noria.errors import BrokerUnavailable, InvalidInput, NoriaError, RunAlreadyStarted, choices
from noria.ids import RUN_ID, event_run_id
from noria.ports import Receiver, Trigger
from noria.triggers.schedules import on_tick
from noria.workflow.builder import Workflow
from noria.workflow.functions import UserFunction
from noria.workflow.triggers import EventTrigger

if TYPE_CHECKING:
    from noria.client.noria import Noria
    from noria.triggers.cloudevents import Event

log = logging.getLogger("noria.triggers")
RETRY_SECONDS = 1.0
BINDING = "noria-binding"  # of a dead letter: the binding that received the event


class Ingress:
    """All that starts runs of these workflows from outside, until it is closed. What cannot start one is buried with the
    reason; nothing is lost."""

    def __init__(self, noria: Noria, registry: Mapping[str, Workflow]) -> None:
        self._noria, self._registry = noria, registry
        self._receivers: list[Receiver] = []

    async def open(self) -> None:
        """Begin to receive. Raises NoriaError for a binding that the server refuses."""
        triggers = self._noria.broker.triggers
        self._receivers.append(await triggers.receive(self._on_trigger))
        for workflow in self._registry.values():
            for binding in workflow.triggers:
                name = binding.consumer(self._noria.namespace, workflow.id)
                self._receivers.append(await triggers.bind(binding.on, binding.stream, name, self._on_event(workflow, binding)))

    async def close(self) -> None:
        for receiver in self._receivers:
            await receiver.close()

    async def _on_trigger(self, trigger: Trigger) -> None:
        workflow, tick = trigger.subject.rpartition(".")[2], trigger.tick
        if tick is not None:
            return await self._settle(trigger, workflow, lambda: on_tick(self._noria, self._registry, trigger, tick), settles=True)
        if BINDING in trigger.headers:
            return await self._replay(trigger, workflow, trigger.headers[BINDING])

        async def start() -> None:
            from noria.triggers.cloudevents import parse  # the SDK and what it needs: with the first event

            event = parse(trigger.headers, trigger.body)
            if workflow not in self._registry and await self._noria.broker.catalogue.get(workflow) is None:
                known = sorted(await self._noria.broker.catalogue.list())
                raise InvalidInput(f"there is no workflow {workflow!r}; there are {choices(known)}")
            await self._start(self._registry.get(workflow, workflow), trigger, event, event.data)

        return await self._settle(trigger, workflow, start)

    def _on_event(self, workflow: Workflow, binding: EventTrigger) -> Callable[[Trigger], Awaitable[None]]:
        async def start(trigger: Trigger) -> None:
            from noria.triggers.cloudevents import parse_all

            for event in parse_all(trigger.headers, trigger.body):
                if not binding.matches(event.get_type(), event.get_source(), event.get_subject()):
                    continue
                if binding.when is None or await _ask(binding.when, event):
                    data = event.data if binding.input is None else await _ask(binding.input, event)
                    try:
                        await self._start(workflow, trigger, event, data)
                    except RunAlreadyStarted:
                        log.debug("event %s of %s came again", event.get_id(), event.get_source())

        async def on_event(trigger: Trigger) -> None:
            name = binding.consumer(self._noria.namespace, workflow.id)
            await self._settle(trigger, workflow.id, lambda: start(trigger), binding=name)

        return on_event

    async def _replay(self, trigger: Trigger, workflow: str, name: str) -> None:
        """A dead letter of a binding is tried again by that binding."""
        known = self._registry.get(workflow)
        for binding in known.triggers if known is not None else ():
            if binding.consumer(self._noria.namespace, workflow) == name and known is not None:
                return await self._on_event(known, binding)(trigger)
        if known is None:
            return trigger.hand_back(RETRY_SECONDS)  # to a worker that has the workflow
        return await self._bury(trigger, workflow, "the binding that received the event is no more", name)

    async def _start(self, workflow: Workflow | str, trigger: Trigger, event: Event, data: Any) -> None:
        run_id = str(event.get("runid") or event_run_id(event.get_source(), event.get_id()))
        if not RUN_ID.fullmatch(run_id):
            raise InvalidInput(f"the extension runid {run_id!r}: use 1 to 128 letters, digits, '-' and '_'")
        resource = event.get("resourceid")
        run = self._noria.create_run(workflow, run_id, str(resource) if resource is not None else None)
        await run.start_from_event(plain(data), event.get("traceparent") or trigger.headers.get("traceparent"))

    async def _settle(
        self, trigger: Trigger, workflow: str, work: Callable[[], Awaitable[None]], *, settles: bool = False, binding: str = ""
    ) -> None:
        """Acknowledge what was done (unless the work settles it itself), hand back what has to wait, bury the rest."""
        try:
            await work()
        except BrokerUnavailable as error:
            log.warning("a trigger of %r waits: %s", workflow, error)
            return trigger.hand_back(RETRY_SECONDS)
        except RunAlreadyStarted:
            log.debug("a trigger of %r came again", workflow)
        except NoriaError as error:
            return await self._bury(trigger, workflow, str(error), binding)
        except Exception as error:
            log.exception("a trigger of %r broke its handler", workflow)
            return await self._bury(trigger, workflow, f"{type(error).__name__}: {error}", binding)
        return None if settles else trigger.ack()

    async def _bury(self, trigger: Trigger, workflow: str, reason: str, binding: str = "") -> None:
        headers = {**trigger.headers, BINDING: binding} if binding else trigger.headers
        try:
            await self._noria.broker.triggers.bury("trigger", workflow, trigger.body, headers, reason)
        except NoriaError as error:
            log.warning("a trigger of %r could not be buried and comes again: %s", workflow, error)
            return trigger.hand_back(RETRY_SECONDS)
        return trigger.ack()


async def _ask(function: UserFunction, event: Event) -> Any:
    answer: Any = function.call(event, None)
    return await answer if inspect.isawaitable(answer) else answer

"""Triggers in: a CloudEvent on `<ns>.trigger.<workflow>` starts a run, once per (source, id)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from noria.contract.values import plain
from noria.errors import BrokerUnavailable, InvalidInput, NoriaError, RunAlreadyStarted, choices
from noria.ids import RUN_ID, event_run_id
from noria.ports import Receiver, Trigger
from noria.triggers.cloudevents import parse
from noria.workflow.builder import Workflow

if TYPE_CHECKING:
    from noria.client.noria import Noria

log = logging.getLogger("noria.triggers")
RETRY_SECONDS = 1.0


async def serve_triggers(noria: Noria, registry: Mapping[str, Workflow]) -> Receiver:
    """Receive triggers until closed. What cannot start a run is buried with the reason; nothing is lost."""

    async def on_trigger(trigger: Trigger) -> None:
        workflow = trigger.subject.rpartition(".")[2]
        try:
            await _start(noria, registry, workflow, trigger)
        except BrokerUnavailable as error:
            log.warning("a trigger of %r waits: %s", workflow, error)
            return trigger.hand_back(RETRY_SECONDS)
        except RunAlreadyStarted:
            log.debug("a trigger of %r came again", workflow)
        except NoriaError as error:
            return await bury(trigger, workflow, str(error))
        except Exception as error:
            log.exception("a trigger of %r broke its handler", workflow)
            return await bury(trigger, workflow, repr(error))
        return trigger.ack()

    async def bury(trigger: Trigger, workflow: str, reason: str) -> None:
        try:
            await noria.broker.triggers.bury("trigger", workflow, trigger.body, trigger.headers, reason)
        except NoriaError as error:
            log.warning("a trigger of %r could not be buried and comes again: %s", workflow, error)
            return trigger.hand_back(RETRY_SECONDS)
        return trigger.ack()

    return await noria.broker.triggers.receive(on_trigger)


async def _start(noria: Noria, registry: Mapping[str, Workflow], workflow: str, trigger: Trigger) -> None:
    event = parse(trigger.headers, trigger.body)
    if workflow not in registry and await noria.broker.catalogue.get(workflow) is None:
        known = sorted(await noria.broker.catalogue.list())
        raise InvalidInput(f"there is no workflow {workflow!r}; there are {choices(known)}")
    extensions: dict[str, Any] = event.get_attributes()
    run_id = extensions.get("runid") or event_run_id(event.get_source(), event.get_id())
    if not RUN_ID.fullmatch(str(run_id)):
        raise InvalidInput(f"the extension runid {run_id!r}: use 1 to 128 letters, digits, '-' and '_'")
    resource = extensions.get("resourceid")
    run = noria.create_run(registry.get(workflow, workflow), str(run_id), str(resource) if resource is not None else None)
    await run.start_from_event(plain(event.get_data()), extensions.get("traceparent"))

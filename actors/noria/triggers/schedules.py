"""Schedules: declared by workers when they register, kept by the server, and what a tick does."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from noria.clock import aware, now
from noria.contract import schedules as stored
from noria.contract.schedules import Definition, Past
from noria.contract.values import plain
from noria.errors import DefinitionError, InvalidInput, NoriaError, NoWorker, RunAlreadyStarted
from noria.limits import DECLARE_EVERY_SECONDS, MISSES_STALE, MISSES_UNHOSTED, SETTLE_SECONDS, TICK_TRIES, TICK_TTL_SECONDS
from noria.machine.state import ENDED
from noria.ports import Refused, StoredSchedule, Tick, Trigger
from noria.triggers.builds import is_newest
from noria.workflow.builder import Workflow
from noria.workflow.cron import Cron

if TYPE_CHECKING:
    from noria.actor.peers import Peers
    from noria.client.noria import Noria

log = logging.getLogger("noria.triggers")
AGAIN_SECONDS = 0.2


def build_of(workflow: Workflow) -> str:
    """A name of the definition that a worker has: version and graph."""
    return f"{workflow.version}-{workflow.graph_hash}"


def as_cron(definition: Definition) -> Cron:
    """Raises DefinitionError for what this version cannot read."""
    return Cron(definition.cron, definition.timezone, definition.input, overlap=definition.overlap)  # pyright: ignore[reportArgumentType]


async def declare(noria: Noria, workflows: Iterable[Workflow], peers: Peers) -> None:
    """Make what is stored equal to what the workflows declare: what changed is replaced, what is gone removed, what is
    paused stays paused. Any number of workers may do so at once; of several builds the newest that is there does. Raises
    DefinitionError for an input that does not fit."""
    by_workflow: dict[str, dict[str, StoredSchedule]] = {w.id: {} for w in workflows}
    for schedule in await noria.broker.schedules.every():
        if schedule.workflow in by_workflow:
            by_workflow[schedule.workflow][schedule.id] = schedule
    for workflow in workflows:
        found = by_workflow[workflow.id]
        wanted = {id: _definition(workflow, id, cron) for id, cron in workflow.schedules_by_id.items()}
        if not (found or wanted) or not await is_newest(noria, workflow, peers):
            continue
        await asyncio.gather(*(_declare(noria, workflow, id, definition, found.get(id)) for id, definition in wanted.items()))
        await asyncio.gather(*(noria.broker.schedules.remove(workflow.id, id) for id in found.keys() - wanted.keys()))


async def keep_declared(noria: Noria, workflows: Iterable[Workflow], peers: Peers) -> None:
    """Declare again whenever workers of other builds came or went, and now and then, for as long as a worker lives."""
    workflows = list(workflows)
    every = DECLARE_EVERY_SECONDS if any(workflow.schedules for workflow in workflows) else None
    while True:
        try:
            async with asyncio.timeout(every):
                await peers.changed.wait()
            await asyncio.sleep(SETTLE_SECONDS)
        except TimeoutError:
            pass
        peers.changed.clear()
        try:
            await declare(noria, workflows, peers)
        except (NoriaError, Refused) as error:
            log.warning("schedules are declared again later: %s", error)


def _definition(workflow: Workflow, id: str, cron: Cron) -> Definition:
    try:
        input = workflow.parse_input(plain(cron.input))
    except InvalidInput as error:
        raise DefinitionError(f"schedule {id!r} of workflow {workflow.id!r}: {error}") from error
    return Definition(cron.expression, cron.timezone, input, cron.overlap, build_of(workflow))


async def _declare(noria: Noria, workflow: Workflow, id: str, wanted: Definition, found: StoredSchedule | None) -> None:
    while True:
        before = _readable(found)
        if found is not None and not found.stale and before is not None and dataclasses.replace(before, paused=False) == wanted:
            return
        paused = before is not None and before.paused
        try:
            await put(noria, workflow.id, id, dataclasses.replace(wanted, paused=paused), found.revision if found is not None else 0)
        except Refused:
            found = await noria.broker.schedules.get(workflow.id, id)
        else:
            return


def _readable(found: StoredSchedule | None) -> Definition | None:
    try:
        return stored.definition(found.body) if found is not None else None
    except NoriaError:
        return None


async def put(noria: Noria, workflow: str, id: str, definition: Definition, revision: int) -> None:
    """Store a schedule; it ticks from now on unless it is paused. Raises Refused."""
    cron = as_cron(definition)
    ttl = min(TICK_TTL_SECONDS, cron.shortest_gap(aware(now())))
    pattern = None if definition.paused else cron.pattern
    await noria.broker.schedules.put(workflow, id, stored.encode(definition), revision, pattern, definition.timezone, ttl)


def run_of(schedule: str, planned: datetime) -> str:
    """The run id of a tick."""
    return f"{schedule}-{planned.astimezone(UTC):%Y%m%dT%H%M%SZ}"


async def on_tick(noria: Noria, registry: Mapping[str, Workflow], trigger: Trigger, tick: Tick) -> None:
    """Start the tick's run, once, unless its overlap forbids; acknowledge or hand back the trigger. Raises NoriaError for
    a tick that can never start a run."""
    definition = stored.definition(trigger.body)
    planned = as_cron(definition).before(aware(tick.following))
    run_id, own = run_of(tick.schedule, planned), registry.get(tick.workflow)
    fits = own is None or build_of(own) == definition.build
    if not fits and trigger.count < TICK_TRIES:
        return trigger.hand_back(AGAIN_SECONDS)  # somebody else may have the definition that declared it
    while True:
        found = await noria.broker.schedules.past(tick.workflow, tick.schedule)
        revision, past = (found.revision, stored.past(found.body)) if found is not None else (0, Past())
        try:
            if past.last_run != run_id and not await _may_start(noria, tick, definition, past, revision, fits, own is not None):
                return trigger.ack()
            if past.last_run != run_id:
                begun = dataclasses.replace(past, last_run=run_id, last_at=planned.timestamp(), misses=0)
                await noria.broker.schedules.put_past(tick.workflow, tick.schedule, stored.encode(begun), revision)
        except Refused:
            continue
        break
    try:
        await noria.create_run(own or tick.workflow, run_id).start_async(definition.input)
    except RunAlreadyStarted:
        log.debug("tick %s came again", run_id)
    return trigger.ack()


async def _may_start(noria: Noria, tick: Tick, definition: Definition, past: Past, revision: int, fits: bool, own: bool) -> bool:
    if not fits:
        await _missed(noria, tick, past, revision, MISSES_STALE, "the workers here have another definition of the workflow than it was declared by")
        return False
    if not own and not await noria.broker.commands.hosted(tick.workflow):
        await _missed(noria, tick, past, revision, MISSES_UNHOSTED, "no worker hosts the workflow; the schedule is removed", remove=True)
        return False
    if definition.overlap == "allow" or past.last_run is None or not await _is_open(noria, tick.workflow, past.last_run):
        return True
    if definition.overlap == "cancel":
        try:
            await noria.create_run(tick.workflow, past.last_run).cancel()
        except (NoWorker, TimeoutError) as error:
            log.warning("schedule %s: the earlier run does not end yet: %s", tick.schedule, error)
        return True
    log.info("schedule %s skips a tick: run %s is not over", tick.schedule, past.last_run)
    skipped = dataclasses.replace(past, skipped=past.skipped + 1, misses=0)
    await noria.broker.schedules.put_past(tick.workflow, tick.schedule, stored.encode(skipped), revision)
    return False


async def _is_open(noria: Noria, workflow: str, run_id: str) -> bool:
    record = await noria.runs.get(run_id, workflow, nested=False)
    return record is not None and record.status not in ENDED


async def _missed(noria: Noria, tick: Tick, past: Past, revision: int, limit: int, why: str, *, remove: bool = False) -> None:
    misses = past.misses + 1
    given_up = misses >= limit
    log.log(logging.ERROR if given_up else logging.WARNING, "schedule %s of %s missed a tick: %s", tick.schedule, tick.workflow, why)
    counted = dataclasses.replace(past, misses=0 if given_up else misses)
    await noria.broker.schedules.put_past(tick.workflow, tick.schedule, stored.encode(counted), revision)
    if given_up:
        reason = f"schedule {tick.schedule!r}: {misses} ticks in a row: {why}"
        await noria.broker.triggers.bury("schedule", tick.workflow, stored.encode(counted), {}, reason)
        if remove:
            await noria.broker.schedules.remove(tick.workflow, tick.schedule)

"""How long an ended run is kept: its record vanishes by itself, and a sweep removes what it leaves behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from noria.actor.load import load
from noria.clock import now
from noria.contract.values import as_dict, dumps, loads
from noria.errors import NewerFormat, NoriaError, ValueUnavailable
from noria.limits import READ_AHEAD, SWEEP_SECONDS
from noria.machine.state import ENDED, Tree
from noria.ports import ActorKey, Broker, Refused, RunKey
from noria.workflow.builder import Workflow

log = logging.getLogger("noria.actor")


def expires_at(tree: Tree, workflow: Workflow) -> float | None:
    """When an ended run is to be forgotten, epoch seconds; None: never, or it goes on."""
    kept, root = workflow.retention_seconds, tree.root
    return None if kept is None or root.status not in ENDED or root.ended_at is None else root.ended_at + kept


async def forget(broker: Broker, run: RunKey) -> None:
    """Remove all that is stored of a run but its record: commands, facts, events and timers of its whole tree, values."""
    await broker.log.purge(run)
    await broker.blobs.purge(run)


async def sweep_for_ever(broker: Broker, workflows: Iterable[Workflow]) -> None:
    """Sweep now and then, for as long as a worker lives."""
    kept = [w for w in workflows if w.retention_seconds is not None]
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        for workflow in kept:
            try:
                await sweep(broker, workflow, SWEEP_SECONDS)
            except (NoriaError, Refused) as error:
                log.warning("runs of workflow %r that are over are not swept yet: %s", workflow.id, error)


async def sweep(broker: Broker, workflow: Workflow, every: float = 0.0) -> int:
    """Forget the runs of a workflow whose record vanished; how many. With `every`, unless somebody did in so many seconds."""
    if every and not await _is_mine(broker, workflow, every):
        return 0
    listed = {run for run, _ in await broker.records.summaries(workflow.id)}
    left = [run for run in await broker.commands.started(workflow.id) if run not in listed]
    swept = 0
    for at in range(0, len(left), READ_AHEAD):
        batch = left[at : at + READ_AHEAD]
        over = await asyncio.gather(*(_is_over(broker, run, workflow) for run in batch))
        gone = [run for run, is_over in zip(batch, over, strict=True) if is_over]
        await asyncio.gather(*(forget(broker, run) for run in gone))
        swept += len(gone)
    return swept


async def _is_mine(broker: Broker, workflow: Workflow, every: float) -> bool:
    """A claim by compare-and-set: of many workers one sweeps. It shares the bucket, under a key that no run has."""
    claim = RunKey(workflow.id, "=sweep")
    stored = await broker.records.get(claim)
    last = as_dict(loads(stored.body)) if stored is not None and stored.body else None
    if last is not None and now() < last["at"] + every:
        return False
    try:
        await broker.records.put(claim, dumps({"at": now()}), stored.revision if stored is not None else 0, "")
    except Refused:
        return False
    return True


async def _is_over(broker: Broker, run: RunKey, workflow: Workflow) -> bool:
    """Whether a run without a record in the list was deleted or kept for long enough; else nobody has begun it yet."""
    try:
        loaded = await load(broker, ActorKey(*run))
    except (NewerFormat, ValueUnavailable) as error:
        log.debug("run %s is not swept: %s", run.run, error)
        return False
    end = expires_at(loaded.tree, workflow)
    return loaded.deleted or (end is not None and now() > end)

"""Several builds of a workflow at once, as in a rolling deploy: whose schedules are stored.

Those of the newest build that has a worker: of the declarations that workers have right now, the one that was first seen
last in this namespace. No build needs a clock or a number for that, a restart changes no order, and a rollback counts as
soon as the newer build's workers are gone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from noria.contract import schedules as stored
from noria.contract.schedules import Declarations
from noria.limits import DECLARATIONS_KEPT
from noria.ports import Refused
from noria.workflow.builder import Workflow

if TYPE_CHECKING:
    from noria.actor.peers import Peers
    from noria.client.noria import Noria

log = logging.getLogger("noria.triggers")
REGISTER = "=declarations"  # beside what became of ticks, under a name that no schedule has


async def is_newest(noria: Noria, workflow: Workflow, peers: Peers) -> bool:
    """Whether no worker has a newer declaration of the workflow than this one."""
    order = await _seen(noria, workflow)
    newer = set(order[order.index(workflow.declaration) + 1 :])
    if not newer:
        return True
    if newer.isdisjoint(await peers.declared(workflow.id)):
        return True
    log.info("the schedules of workflow %r are those of a newer build, which has workers too", workflow.id)
    return False


async def _seen(noria: Noria, workflow: Workflow) -> list[str]:
    """All declarations of the workflow, the first one first, this one among them from now on."""
    while True:
        found = await noria.broker.schedules.past(workflow.id, REGISTER)
        known, revision = (stored.declarations(found.body).known, found.revision) if found is not None else ([], 0)
        if workflow.declaration in known:
            return known
        known = [*known, workflow.declaration][-DECLARATIONS_KEPT:]
        try:
            await noria.broker.schedules.put_past(workflow.id, REGISTER, stored.encode(Declarations(known)), revision)
        except Refused:
            continue
        return known

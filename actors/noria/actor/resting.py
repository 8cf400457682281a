"""What happens around a resting fact: callbacks before it; record and news after it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from noria.actor import parcels
from noria.actor.context import LiveContext, call
from noria.actor.load import RECORD_FORMAT, is_newest, load
from noria.actor.retention import expires_at
from noria.clock import now
from noria.contract.facts import Fact, FactMessage, Finished, Rested, StepSuspended
from noria.contract.results import run_result
from noria.contract.values import dumps, loads, plain
from noria.errors import NoriaError
from noria.limits import MAX_RESULT_NEWS_BYTES, RETENTION_GRACE_SECONDS
from noria.machine.fold import fold_message
from noria.machine.state import ENDED, Tree
from noria.machine.view import status, summary, view
from noria.ports import Refused
from noria.workflow.context import AbortSignal

if TYPE_CHECKING:
    from noria.actor.activation import Activation

log = logging.getLogger("noria.actor")
SILENT = ("waiting", "paused", "running", "pending")


async def save(activation: Activation, active: bool = False) -> None:
    """Put the record. A record follows its fact: one that is refused gives way to what is newer; of an active run it is
    left to the next time."""
    async with activation.saving:
        await _save(activation, active)


async def _save(activation: Activation, active: bool) -> None:
    tree, run, revision, last = activation.tree, activation.key.tree, activation.revision, activation.tree.root.last
    if revision is None or (active and tree.root.status in ENDED):
        return
    if not last and not await is_newest(activation.broker, activation.key, tree):
        return  # no append has shown yet that what was read did not lag
    tree.expires_at = expires_at(tree, activation.workflow)
    ttl = None if tree.expires_at is None else max(0.0, tree.expires_at - now()) + RETENTION_GRACE_SECONDS
    line, body = dumps(summary(tree)).decode(), dumps({"v": RECORD_FORMAT, "tree": tree.dump()})
    body = await parcels.pack(activation.broker, run, body)
    while True:  # somebody else may put one between a refusal and the next try, more than once
        try:
            activation.revision = await activation.broker.records.put(run, body, revision, line, ttl)
        except Refused:
            stored = await load(activation.broker, activation.key)
            if stored.deleted or stored.tree.root.last > last:
                return
            activation.revision = revision = stored.revision
            if not active:
                continue
        return


async def note_misfit(activation: Activation, reason: str) -> None:
    """Let the record of a run that this worker cannot host say why; best effort, and once for each reason."""
    if activation.tree.misfit == reason:
        return
    activation.tree.misfit = reason
    try:
        await save(activation, active=True)
    except (NoriaError, Refused) as error:
        log.warning("the record of run %s does not show its misfit: %s", activation.key.run, error)


def announce(activation: Activation) -> None:
    """Tell callers that the run rests. Best effort: they read now and then as well."""
    tree, key = activation.tree, activation.key
    state = status(tree)
    if state == "waiting":
        return
    shown: dict[str, Any] | None = view(tree, key.workflow, key.run)
    body = dumps({"in": activation.journal.in_seen, "view": shown})
    if len(body) > min(MAX_RESULT_NEWS_BYTES, activation.broker.payload_bytes):
        body = dumps({"in": activation.journal.in_seen, "view": None})
    activation.broker.news.rest(key.tree, state, body)


async def call_back(activation: Activation, facts: list[Fact]) -> None:
    """on_finish and on_error, awaited before the fact that they tell of; what they raise is logged."""
    if not isinstance(facts[-1], (Finished, Rested, StepSuspended)):
        return
    tree, workflow = Tree.of(loads(dumps(activation.tree.dump()))), activation.workflow
    foreseen = FactMessage(facts, activation.journal.in_seen, 0, "", "")
    fold_message(tree, tree.root.last + 1, "", foreseen)
    state = tree.root.status
    if state in SILENT:
        return
    shown = plain(view(tree, activation.key.workflow, activation.key.run))  # the end's facts are not the callback's to change
    result = run_result(shown, workflow.parse_output)
    due = {"on_finish": workflow.on_finish, "on_error": workflow.on_error if state in ("failed", "tripwire") else None}
    for name, callback in due.items():
        if callback is not None:
            # the door is the same after a crash, and another one in the next stretch
            context = LiveContext(activation, tree.root, entry=name, value=result.input, tree=tree, life=activation.journal.door)
            try:
                await call(callback, result, context)
            except (Exception, AbortSignal):
                log.exception("a callback of workflow %r raised; run %s goes on", workflow.id, activation.key.run)



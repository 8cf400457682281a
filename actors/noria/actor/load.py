"""State of a run as stored: its record, and what came after it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from sys import maxsize
from typing import Any, NamedTuple

from noria.actor import parcels
from noria.actor.shared import Listener
from noria.clock import monotonic, now
from noria.contract import commands, envelopes
from noria.contract.events import decode_live
from noria.contract.values import BAD_DATA, as_dict, loads, too_new
from noria.errors import BrokerUnavailable, NewerFormat, NoriaError, ValueUnavailable
from noria.limits import LAG_SECONDS, LOG_TTL_SECONDS, MAX_NESTING, PATIENCE_SECONDS
from noria.machine.fold import fold_command, fold_message, fold_unreadable
from noria.machine.running import show_running
from noria.machine.state import RESTING, Tree, above
from noria.ports import ActorKey, Broker, Known, RunKey, Stored, StoredRecord, deadline

log = logging.getLogger("noria.actor")
RECORD_FORMAT = 1
UNANSWERED = (NewerFormat, ValueUnavailable, BrokerUnavailable)  # somebody else, or a later try, may read what is stored
SEGMENT = r"[A-Za-z0-9_-]+(=[0-9]{1,9})?(@[0-9]{1,9})?"
PATH = re.compile(rf"({SEGMENT}(\.{SEGMENT})*)?")


class Unreadable(NamedTuple):
    """What is stored but cannot be read: `kind` is record, command or fact."""

    kind: str
    actor: ActorKey
    sequence: int
    body: bytes
    reason: str


class Loaded(NamedTuple):
    """A tree, and the record that it began with: its revision (0 = none), the root's last fact in it; `deleted`: it is
    a tombstone. What could not be read was passed over."""

    tree: Tree
    revision: int
    recorded: int = 0
    deleted: bool = False
    unreadable: Sequence[Unreadable] = ()


async def load(broker: Broker, key: ActorKey, newcomer: int = 0, listener: Listener | None = None) -> Loaded:
    """The tree at and below `key`. Raises NewerFormat when a newer Noria wrote some of it, ValueUnavailable when some
    of it is sealed with a key that is not here, or gone.

    Facts are read before commands, so that none names a command that was not read; where replicas lag it is read again.
    `newcomer`: a command that is delivered for the first time, so that nobody can have hosted the actor by it yet. `listener`
    knows what spread children share.
    """
    end = min(monotonic() + PATIENCE_SECONDS, deadline.get())
    while True:
        loaded, entries, command = await _load(broker, key, newcomer, listener)
        if await _is_whole(broker, key, loaded.tree, entries, command):
            return loaded
        if monotonic() > end:
            raise _lags(key)
        await asyncio.sleep(LAG_SECONDS)


async def _is_whole(broker: Broker, key: ActorKey, tree: Tree, entries: Sequence[Stored], command: int) -> bool:
    """Whether every command that a fact names was read, or aged out: those of children elsewhere, by which they go on, too."""
    read = {key.path: command}
    for entry in entries:
        if entry.kind == "in":
            read[entry.actor.path] = max(read.get(entry.actor.path, 0), entry.sequence)
    facts = {entry.actor.path for entry in entries if entry.kind == "run"}
    named = [(max(actor.in_seen, actor.door), path) for path in facts if (actor := tree.actors.get(path)) is not None]
    newest, path = max([*named, (tree.root.in_seen, key.path)])
    if newest <= max(read.values()):
        return True
    owners = [owner for owner in (path, *above(path)) if owner.startswith(key.path)]
    return all([await broker.log.confirm(ActorKey(*key.tree, owner), maxsize, read.get(owner, 0)) for owner in owners])


async def _load(broker: Broker, key: ActorKey, newcomer: int, listener: Listener | None) -> tuple[Loaded, Sequence[Stored], int]:
    """What was read at once, of which entries, and the actor's last command in it."""
    tree, revision, deleted, unreadable = Tree(key.path), 0, False, list[Unreadable]()
    stored = await broker.records.get(key.tree)  # of the run: it holds what aged out of a child's chain too
    if stored is not None:
        revision = stored.revision
        try:
            found = _recorded(await _opened(broker, key, stored, listener))
            if found is not None:
                tree = found if key.path == "" else found.at(key.path)
            deleted = found is None
        except UNANSWERED:
            raise
        except (NoriaError, *BAD_DATA) as error:
            unreadable.append(_unreadable("record", key, revision, stored.body, error))
    recorded, command, entries = tree.root.last, tree.newest_command, None
    if stored is not None and key.path == "" and tree.root.status in RESTING:
        entries = await _commands_since(broker, key, tree, newcomer)
    if entries is None:
        entries = await broker.log.read_tree(key, tree.cursor)
        # a child's from its start on: the record may be of a host that knows its facts only
        entries += await broker.commands.read_tree(key, tree.root.in_seen if key.path == "" else 0)
    if unreadable:
        _check_whole(key, entries, unreadable[0])
    for entry in sorted(entries, key=lambda e: e.sequence):
        bad = await fold(broker, tree, entry, listener)
        if bad is not None:
            unreadable.append(bad)
    command = max([e.sequence for e in entries if e.kind == "in" and e.actor == key], default=command)
    return Loaded(tree, revision, recorded, deleted, unreadable), entries, command


def _check_whole(key: ActorKey, entries: Sequence[Stored], record: Unreadable) -> None:
    """Behind a record that cannot be read the log has to tell everything: what aged out of it would be done again. Raises
    ValueUnavailable where it may not."""
    began = min((e.time for e in entries if e.kind == "in" and e.actor == key), default=0.0)
    if now() - began > LOG_TTL_SECONDS:
        raise ValueUnavailable(
            f"the record of run {key.run!r} of workflow {key.workflow!r} is unreadable ({record.reason}), and its log began longer ago than "
            f"facts are kept ({LOG_TTL_SECONDS // 86400} days)"
        )


async def is_newest(broker: Broker, key: ActorKey, tree: Tree) -> bool:
    """Whether the tree holds every acknowledged fact and command of its root. Hosts need not ask: their appends are
    compared. Who decides without one has to."""
    return await broker.log.confirm(key, tree.root.last, tree.newest_command)


async def load_newest(broker: Broker, key: ActorKey) -> Loaded:
    """`load`, again until no replica's lag is in it. Raises BrokerUnavailable after a while."""
    end = min(monotonic() + PATIENCE_SECONDS, deadline.get())
    while True:
        loaded = await load(broker, key)
        if loaded.deleted or await is_newest(broker, key, loaded.tree):
            return loaded
        if monotonic() > end:
            raise _lags(key)
        await asyncio.sleep(LAG_SECONDS)


async def is_deleted(broker: Broker, run: RunKey) -> bool:
    """Whether the run was deleted, or kept for long enough: nothing will come of it any more."""
    stored = await broker.records.get(run)
    try:
        return stored is not None and (not stored.body or bool((as_dict(loads(stored.body)) or {}).get("deleted")))
    except BAD_DATA:
        return False


def _lags(key: ActorKey) -> BrokerUnavailable:
    return BrokerUnavailable(f"what the replicas know of run {key.run!r} lags behind their leader")


async def _opened(broker: Broker, key: ActorKey, record: StoredRecord, listener: Listener | None) -> Any:
    """A record's data; for a child what concerns it."""
    if not record.body:
        return {"deleted": True}
    if key.path and listener is not None:
        return await listener.record(key, record)
    return loads(await parcels.unpack(broker, key.tree, record.body))


def _recorded(data: Any) -> Tree | None:
    """The tree of a record; None for a tombstone."""
    if data.get("deleted"):
        return None
    if data["v"] > RECORD_FORMAT:
        raise NewerFormat(too_new("the record", data["v"], RECORD_FORMAT))
    return Tree.of(data["tree"])


async def _commands_since(broker: Broker, key: ActorKey, tree: Tree, newcomer: int) -> list[Stored] | None:
    """The commands since the record of a resting root; None when these do not say all: a fact came after it, or may
    have come on a child's chain, since whoever hosts by a command need not write on the root's for long.

    While the root rests so do its children, and whatever wakes them comes by the root: no reading of the tree, which
    scans. A root chain without a last fact aged out.
    """
    seen = tree.root.in_seen
    entries = await broker.commands.read(key, seen, known(tree, seen))
    return entries if not entries or entries[0].sequence == newcomer else None


def known(tree: Tree, seen: int) -> Known:
    """What the tree says of the commands to its root up to `seen`, all of which were read."""
    return Known(tree.root.started, tree.commands - sum(s > seen for s, path in tree.pending if path == tree.base))


async def glance(broker: Broker, key: ActorKey) -> Loaded:
    """What a list shows of a run without a record: while nobody began it, its commands are all there is. Read by exact subjects."""
    last, sent = await asyncio.gather(broker.log.last(key), broker.commands.read(key))
    if last is not None:
        return await load(broker, key)
    tree = Tree()
    for entry in sent:
        await fold(broker, tree, entry)
    return Loaded(tree, 0)


async def look_closer(broker: Broker, key: ActorKey, tree: Tree) -> None:
    """Show in the tree of an active run what runs right now, which no fact tells."""
    # the root appends between its entries: what began before its last fact has ended
    for entry in await broker.log.read_live(key.tree, max(tree.root.last, tree.root.started)):
        try:
            event = decode_live(entry.body)
        except NoriaError:
            continue  # a large chunk's slip
        show_running(tree, entry.sequence, entry.actor.path, event.type, event.step, event.at, event.data)


async def fold(broker: Broker, tree: Tree, entry: Stored, listener: Listener | None = None) -> Unreadable | None:
    """One stored entry into the tree. What nobody can read is passed over and returned: the chain goes on behind it.
    Raises NewerFormat for what only a newer Noria can read, ValueUnavailable for what nobody can at present."""
    path, is_command = entry.actor.path, entry.kind == "in"
    try:
        if path.count(".") >= MAX_NESTING or not PATH.fullmatch(path):
            raise NoriaError(f"no actor has the path {path[:200]!r}")
        body = await parcels.unpack(broker, entry.actor.tree, entry.body)
        if is_command:
            command = commands.decode(body)
            if path == tree.base and isinstance(command, (commands.Start, commands.Resume)) and command.shared:
                await (listener or Listener(broker)).hear(entry.actor.tree, command)  # who is above knows it already
            fold_command(tree, entry.sequence, path, command)
        else:
            fold_message(tree, entry.sequence, path, envelopes.decode(body))
    except UNANSWERED:
        raise
    except (NoriaError, *BAD_DATA) as error:
        if path in tree.actors:
            fold_unreadable(tree, entry.sequence, path, is_command)
        return _unreadable("command" if is_command else "fact", entry.actor, entry.sequence, entry.body, error)
    finally:
        if not is_command:
            tree.cursor = max(tree.cursor, entry.sequence)
    return None


def _unreadable(kind: str, actor: ActorKey, sequence: int, body: bytes, error: Exception) -> Unreadable:
    reason = str(error) if isinstance(error, NoriaError) else f"not a {kind}: {error!r}"
    log.error("%s %d of run %s/%s at %r is unreadable: %s", kind, sequence, *actor, reason)
    return Unreadable(kind, actor, sequence, body, reason)


async def bury(broker: Broker, unreadable: Sequence[Unreadable]) -> None:
    """What cannot be read goes to the dead stream, with the reason."""
    for bad in unreadable:
        where = {"noria-run": bad.actor.run, "noria-path": bad.actor.path, "noria-sequence": str(bad.sequence)}
        await broker.triggers.bury(bad.kind, bad.actor.workflow, bad.body, where, bad.reason)

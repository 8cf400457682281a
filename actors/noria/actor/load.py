"""State of a run as stored: its record, and what came after it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

from noria.actor import parcels
from noria.contract import commands, facts
from noria.contract.values import loads
from noria.errors import NoriaError
from noria.machine.fold import fold_command, fold_message
from noria.machine.state import RESTING, Tree
from noria.ports import ActorKey, Broker, Stored

log = logging.getLogger("noria.actor")


class Loaded(NamedTuple):
    """A tree, and the record that it began with: its revision (0 = none), the root's last fact in it; `deleted`: it is
    a tombstone."""

    tree: Tree
    revision: int
    recorded: int = 0
    deleted: bool = False


async def load(broker: Broker, key: ActorKey, newcomer: int = 0) -> Loaded:
    """The tree at and below `key`. Facts are read before commands: so no fact names a command that was not read.

    `newcomer`: a command that is delivered for the first time, so that nobody can have hosted the actor by it yet.
    """
    tree, revision, recorded, deleted = Tree(key.path), 0, 0, False
    stored = await broker.records.get(key.tree) if key.path == "" else None
    if stored is not None:
        data: Any = loads(await parcels.unpack(broker, key.tree, stored.body)) if stored.body else {}
        revision, deleted = stored.revision, "tree" not in data
        tree = Tree.of(data["tree"]) if not deleted else tree
        recorded = tree.root.last
    entries = None
    if stored is not None and tree.root.status in RESTING:
        entries = await _commands_since(broker, key, tree, newcomer)
    if entries is None:
        entries = await broker.log.read_tree(key, tree.cursor)
        entries += await broker.commands.read_tree(key, tree.root.in_seen)
    for entry in sorted(entries, key=lambda e: e.sequence):
        await fold(broker, tree, entry)
    return Loaded(tree, revision, recorded, deleted)


async def _commands_since(broker: Broker, key: ActorKey, tree: Tree, newcomer: int) -> list[Stored] | None:
    """The commands since the record of a resting root; None when these do not say all: a fact came after it, or may
    have come on a child's chain, since whoever hosts by a command need not write on the root's for long.

    While the root rests so do its children, and whatever wakes them comes by the root: no reading of the tree, which
    scans. A root chain without a last fact aged out.
    """
    last, entries = await asyncio.gather(broker.log.last(key), broker.commands.read(key, tree.root.in_seen))
    rests = last is None or last.sequence == tree.root.last
    return entries if rests and (not entries or entries[0].sequence == newcomer) else None


async def fold(broker: Broker, tree: Tree, entry: Stored) -> None:
    """One stored entry into the tree. What cannot be read is passed over, loudly: the chain goes on behind it."""
    path = entry.actor.path
    try:
        body = await parcels.unpack(broker, entry.actor.tree, entry.body)
        if entry.kind == "in":
            fold_command(tree, entry.sequence, path, commands.decode(body))
            return
        fold_message(tree, entry.sequence, path, facts.decode(body))
    except NoriaError as error:
        log.error("entry %d of run %s/%s at %r is unreadable: %s", entry.sequence, *entry.actor, error)
        if entry.kind == "run":
            tree.actor(path).last = entry.sequence
    if entry.kind == "run":
        tree.cursor = max(tree.cursor, entry.sequence)

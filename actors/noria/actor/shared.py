"""State and request context on their way to children that live elsewhere: in each command while they are small, by one
reference in all of them once they are large. A thousand starts would store a large state a thousand times."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from typing import Any, NamedTuple, TypeAlias

from noria.actor import parcels
from noria.actor.once import Once
from noria.contract import commands
from noria.contract.values import as_dict, dumps, loads
from noria.errors import NoriaError
from noria.limits import RECORDS_KEPT, SHARED_BYTES, SHARED_KEPT, SHARED_PART
from noria.machine.state import Register, Tree, above, live
from noria.ports import ActorKey, Broker, RunKey, StoredRecord

Values: TypeAlias = dict[str, Any]


class Told(NamedTuple):
    """What a command tells: all there is, or what came since the blob `shared` was made."""

    state: Values
    context: Values
    shared: str = ""


class _Kept(NamedTuple):
    """A blob of both, the sequence of each value in it, and its size."""

    name: str
    state: dict[str, int]
    context: dict[str, int]
    size: int


class Teller:
    """The end of those who have children elsewhere: one for each activation."""

    def __init__(self, broker: Broker, run: RunKey) -> None:
        self._broker, self._run = broker, run
        self._limit = min(SHARED_BYTES, broker.inline_bytes)
        self._kept: _Kept | None = None
        self._lock = asyncio.Lock()  # one makes the blob, the others refer to it

    async def tell(self, tree: Tree) -> Told:
        """What to tell a child now."""
        if not tree.state and not tree.context:
            return Told({}, {})
        async with self._lock:
            kept, told = self._kept, Told(live(tree.state), live(tree.context))
            since = _since(tree, kept) if kept is not None else None
            size = _size(told if since is None else since)
            if since is not None and kept is not None and size <= max(self._limit, kept.size // SHARED_PART):
                return since
            if since is None and size <= self._limit:
                return told
            body = dumps({"state": told.state, "context": told.context})
            stamps = _stamps(tree.state), _stamps(tree.context)
            self._kept = _Kept(await self._broker.blobs.put(self._run, body), *stamps, len(body))
            return Told({}, {}, self._kept.name)


def _since(tree: Tree, kept: _Kept) -> Told | None:
    """What changed; None when something was removed."""
    state, context = _stamps(tree.state), _stamps(tree.context)
    if kept.state.keys() - state.keys() or kept.context.keys() - context.keys():
        return None
    return Told(_newer(tree.state, kept.state), _newer(tree.context, kept.context), kept.name)


def _stamps(register: Register) -> dict[str, int]:
    return {key: entry[0] for key, entry in register.items() if len(entry) > 1}


def _newer(register: Register, stamps: dict[str, int]) -> Values:
    return {key: entry[1] for key, entry in register.items() if len(entry) > 1 and stamps.get(key) != entry[0]}


def _size(told: Told) -> int:
    return len(dumps(told.state)) + len(dumps(told.context)) if told.state or told.context else 0


class Record:
    """A run's record as data, its actors by path."""

    def __init__(self, body: bytes) -> None:
        self._data: Values = loads(body) if body else {}
        tree = self._data.get("tree")
        self._actors: dict[str, Any] = {} if tree is None else {actor["path"]: actor for actor in tree["actors"]}
        self._paths = sorted(self._actors)

    def near(self, path: str) -> Values:
        """A copy with the actors only on the child's own line."""
        if not self._data.get("tree"):
            return {**self._data}
        begin, end = (bisect_left(self._paths, path + sign) for sign in "./")  # what begins with "path." stands between the two
        line = [*reversed(above(path)), path, *self._paths[begin:end]]
        thin = {**self._data["tree"], "actors": [self._actors[p] for p in line if p in self._actors]}
        return loads(dumps({**self._data, "tree": thin}))


class Listener:
    """The end of the children: one for each host, which reads a blob, and the run's record, once for all of them."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._blobs = Once[tuple[RunKey, str], tuple[Values, Values]](SHARED_KEPT)
        self._records = Once[tuple[RunKey, int], Record](RECORDS_KEPT)

    async def hear(self, run: RunKey, command: commands.Start | commands.Resume) -> None:
        """Let a command that refers to a blob say what stands there. Raises NoriaError when that is gone, or of another shape."""
        state, context = await self._blobs.read((run, command.shared), lambda: self._read(run, command.shared))
        command.state, command.context = {**state, **command.state}, {**context, **command.context}

    async def record(self, child: ActorKey, stored: StoredRecord) -> Values:
        """The record's data as far as it concerns a child, the caller's own. Raises like reading it."""
        found = await self._records.read((child.tree, stored.revision), lambda: self._read_record(child.tree, stored))
        return found.near(child.path)

    async def _read_record(self, run: RunKey, stored: StoredRecord) -> Record:
        return Record(await parcels.unpack(self._broker, run, stored.body))

    async def _read(self, run: RunKey, name: str) -> tuple[Values, Values]:
        try:
            found = as_dict(loads(await self._broker.blobs.get(run, name))) or {}
        except ValueError as error:
            raise NoriaError(f"{name} is no state: {error}") from error
        state, context = as_dict(found.get("state")), as_dict(found.get("context"))
        if state is None or context is None:
            raise NoriaError(f"{name} is no state")
        return state, context

"""The pen of an activation: the only place where facts are appended, with the fence."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import Any

from noria.actor import owned, parcels
from noria.actor.load import bury, fold, load
from noria.actor.shared import Listener
from noria.actor.tenure import Tenure
from noria.clock import now
from noria.contract.envelopes import Envelope
from noria.contract.facts import Answered, Fact, FactMessage, TakenOver
from noria.errors import BrokerUnavailable, LimitExceeded
from noria.ids import Nonces
from noria.limits import HOLD_SECONDS, MAX_VALUE_BYTES
from noria.machine.fold import fold_message
from noria.machine.state import Actor, Tree
from noria.ports import ActorKey, Broker, Closed, Refused, Stored, Stretch

log = logging.getLogger("noria.actor")


class Fenced(Exception):
    """Somebody else hosts the actor: drop the activation, acknowledge nothing."""


class Journal:
    """Appends to the chains of one activation: its own actor and the children that it runs in place."""

    def __init__(
        self, broker: Broker, key: ActorKey, tree: Tree, door: int, nonces: Nonces, tenure: Tenure | None = None,
        listener: Listener | None = None,
    ) -> None:  # fmt: skip
        self.broker, self.key, self.tree, self.door, self.nonces = broker, key, tree, door, nonces
        self._tenure, self._listener = tenure, listener
        self.nonce = nonces.next()
        self.in_seen = 0
        self.opening: dict[str, list[Fact]] = {}  # packed with the next fact of an actor
        self.adopted: set[str] = set()  # in-place children of which a former host recorded something since they were decided on
        self._envelope = Envelope(broker.namespace, key.workflow, key.run, tree.traceparent)
        self._inline = broker.inline_bytes
        self._flying, self._all_landed = 0, asyncio.Event()  # appends under way whose tasks were cancelled
        self._stretch: Stretch | None = None

    def watched_by(self, stretch: Stretch) -> Stretch:
        """Report appends from now on; the events continue its trace."""
        self._stretch, self._envelope.traceparent = stretch, stretch.traceparent
        return stretch

    @property
    def traceparent(self) -> str | None:
        """What children elsewhere go on from."""
        return self._envelope.traceparent

    def key_of(self, actor: Actor) -> ActorKey:
        return ActorKey(self.key.workflow, self.key.run, actor.path)

    async def append(self, actor: Actor, facts: list[Fact]) -> None:
        """Store facts that are ready together and fold them. Raises Fenced when another host wrote, and LimitExceeded,
        storing nothing, when they are too large.

        A cancelled task must not lose the sequence of an append that the server stores all the same: it is folded
        when its answer comes, and `settle` waits for it. What a former host recorded meanwhile stands: then nothing is
        stored, and the actor is to be decided on anew.
        """
        seen = self.in_seen if actor.path == self.key.path else 0  # not what comes while it is looked who hosts: its timer, say
        if actor.last == 0 and self._tenure is not None and self._tenure.is_long() and not await self._hosts_still():
            raise Fenced  # what the other wrote may have aged out: an empty chain is as it was expected
        if actor.path in self.adopted:
            self.adopted.discard(actor.path)
            return None
        expected = actor.last  # not what is adopted while a parcel is on its way
        opening = self.opening.pop(actor.path, None)
        message = FactMessage(
            facts if opening is None else [*opening, *facts],
            seen, self.door, self.nonce, self.nonces.next(), actor.member,
        )  # fmt: skip
        body = self._envelope.encode(actor.path, message)
        if len(body) > self._inline:
            self._check_size(actor, message, len(body), opening)
            body = await self._pack(body)
        key = self.key if actor.path == self.key.path else self.key_of(actor)
        while True:
            future = self.broker.log.append(key, body, expected, partial(self._landed, actor, message))
            if self._stretch is not None:
                self._stretch.appended()
            try:
                sequence = await future  # no shield, which costs each step a second future and a turn of the loop
            except asyncio.CancelledError:
                if future.cancelled():
                    self._fly(1)
                elif future.exception() is None:
                    fold_message(self.tree, future.result(), actor.path, message)
                raise
            except Refused:
                if opening is not None:
                    self.opening[actor.path] = opening
                return await self._refused(actor, message, body, expected)
            except BrokerUnavailable as error:
                await self._hold_on(error)
            except LimitExceeded:
                self._inline = self.broker.inline_bytes
                if len(body) <= self._inline:
                    raise
                body = await self._pack(body)  # the server takes less than it did
            else:
                return fold_message(self.tree, sequence, actor.path, message)

    async def _pack(self, body: bytes) -> bytes:
        while True:
            try:
                return await parcels.pack(self.broker, self.key.tree, body)
            except BrokerUnavailable as error:
                await self._hold_on(error)

    async def _hold_on(self, error: BrokerUnavailable) -> None:
        """What nobody can store at present, a full stream's say, is kept for the next try: given up, its step would run
        again. Whoever hosts the actor meanwhile fences us. Raises the error when no try can help."""
        if isinstance(error, Closed):
            raise error
        log.warning("run %s keeps what it has to record and tries again: %s", self.key.run, error)
        await asyncio.sleep(HOLD_SECONDS)

    def _check_size(self, actor: Actor, message: FactMessage, size: int, opening: list[Fact] | None) -> None:
        """What is packed with the facts, a run's input, had its own limit; after a refusal it goes with the next ones."""
        if size <= MAX_VALUE_BYTES:
            return
        size -= len(self._envelope.encode(actor.path, replace(message, facts=opening))) if opening else 0
        if size > MAX_VALUE_BYTES:
            if opening is not None:
                self.opening[actor.path] = opening
            raise LimitExceeded(f"{size} bytes to record, at most {MAX_VALUE_BYTES}: keep large data elsewhere, hand on where it is")

    def _landed(self, actor: Actor, message: FactMessage, sequence: int | None) -> None:
        """An append whose task was cancelled came to its end."""
        if sequence is not None:
            fold_message(self.tree, sequence, actor.path, message)
        self._fly(-1)

    def _fly(self, change: int) -> None:
        """The answer may come before the task knows that it was cancelled."""
        self._flying += change
        if not self._flying:
            self._all_landed.set()

    async def settle(self) -> None:
        """Wait for appends whose tasks were cancelled."""
        while self._flying:
            self._all_landed.clear()
            await self._all_landed.wait()

    async def _refused(self, actor: Actor, message: FactMessage, body: bytes, expected: int) -> None:
        """Go on if the chain only aged out; adopt what a former host recorded of in-place children; else give way.

        A chain that aged out, and a child's, do not tell who hosts: the own chain does, or the record that outlives it.
        """
        if self._stretch is not None:
            self._stretch.conflict()
        key = self.key_of(actor)
        is_empty = actor.last > 0 and await self.broker.log.last(key) is None
        if (actor.path == self.key.path and not is_empty) or not await self._hosts_still():
            raise Fenced
        if is_empty:
            sequence = await self.broker.log.append(key, body, 0)
            self.opening.pop(actor.path, None)
            fold_message(self.tree, sequence, actor.path, message)
            return
        await self.catch_up()
        self.adopted.discard(actor.path)
        if actor.last == expected:
            raise Fenced

    async def catch_up(self) -> None:
        """Fold what others wrote at and below the own actor. Raises Fenced when it was on the own chain.

        Never one child's chain alone: what ends a block says nothing of the members, whose facts came before it.
        """
        tree = self.tree
        for entry in await self.broker.log.read_tree(self.key, tree.cursor):
            if entry.actor.path == self.key.path and entry.sequence > tree.root.last:
                raise Fenced
            self._adopt(entry)
            await self.take_in(entry)

    def _adopt(self, entry: Stored) -> None:
        """What an in-place child is about to do here gives way to a fact that a former host stored."""
        actor = self.tree.actors.get(entry.actor.path)
        if actor is None or actor.started or entry.sequence <= actor.last:
            return
        self.adopted.add(actor.path)
        for fact in self.opening.pop(actor.path, ()):
            if isinstance(fact, Answered):
                actor.answers.pop(fact.entry, None)

    async def take_in(self, entry: Stored) -> None:
        bad = await fold(self.broker, self.tree, entry, self._listener)
        if bad is not None:
            await bury(self.broker, [bad])

    async def _hosts_still(self) -> bool:
        """Whether nobody else wrote on the own chain, and be it long ago."""
        stored = await load(self.broker, self.key)
        root = stored.tree.root
        return not stored.deleted and (root.last <= self.tree.root.last or root.host == self.nonce)

    async def take_over(self) -> None:
        """Fence whoever hosted before: on the own chain and on every open child that ran in place."""
        await self.append(self.tree.root, [TakenOver(now())])
        await owned.together(self._fence(a) for a in self.tree.below(self.key.path))

    async def _fence(self, child: Actor) -> None:
        """A refusal tells what a former host wrote meanwhile, which may be a take-over of its own: again behind it."""
        while self._open(child) and child.host != self.nonce:
            await self.append(child, [TakenOver(now())])

    def _open(self, actor: Actor) -> bool:
        return actor.last > 0 and actor.status == "active" and not self.tree.lives_elsewhere(actor.path)

    def live(self, type: str, actor: Actor, step: str | None, data: dict[str, Any], at: float | None = None) -> None:
        """Tell observers; best effort, not awaited. What readers can restore from facts is left out when it is large."""
        at = now() if at is None else at
        body = self._envelope.encode_live(self.nonces.next(), type, actor.path, step, at, data)
        if len(body) > self._inline:
            rest = {name: value for name, value in data.items() if name not in ("input", "output", "resume_payload")}
            body = self._envelope.encode_live(self.nonces.next(), type, actor.path, step, at, rest)
        self.broker.log.publish_live(self.key_of(actor), body)

    async def tell(self, type: str, actor: Actor, step: str | None, data: Any) -> None:
        """Tell observers what a step wants to say, whole whatever its size."""
        body = self._envelope.encode_live(self.nonces.next(), type, actor.path, step, now(), data)
        await self.broker.log.tell_live(self.key_of(actor), await parcels.pack(self.broker, self.key.tree, body))

"""Hosts know each other: they greet, each looks after the next one, and what a dead one held is handed on at once.

Nothing of it is stored, nothing is on a run's way, and nothing rests on it: a dead host that nobody misses is followed
after the lease, and a living one that was missed by mistake is fenced like anyone whose lease ran out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from noria.actor import parcels
from noria.contract import envelopes, facts
from noria.contract.events import decode_live
from noria.contract.presence import Word, decode, encode
from noria.errors import BrokerUnavailable, NoriaError, ValueUnavailable
from noria.ids import maker
from noria.limits import CONFIRM_SECONDS, GATHER_SECONDS, PATIENT_GATHER_SECONDS, PROBE_SECONDS, RESCUE_AT_ONCE
from noria.ports import EVERYBODY, ActorKey, Stored, Unacknowledged

if TYPE_CHECKING:
    from noria.actor.host import Host

log = logging.getLogger("noria.host")
EVERYBODY_ANSWERED = 1_000_000  # nobody knows how many there are


class Peers:
    """The other hosts of the namespace, as far as `host` knows."""

    def __init__(self, host: Host) -> None:
        self.host, self.broker, self.id = host, host.broker, host.nonces.prefix
        self._others: dict[str, Word] = {}
        self._declared = {id: workflow.declaration for id, workflow in host.workflows.items()}
        self._company = asyncio.Event()  # there is another one
        self.changed = asyncio.Event()  # one with another definition of a workflow of ours came or went
        self._stop: Callable[[], Awaitable[None]] | None = None
        self._task: asyncio.Task[None] | None = None

    def have(self, workflow: str) -> bool:
        """Whether another host takes deliveries of this workflow."""
        return any(workflow in word.workflows for word in self._others.values())

    async def declared(self, workflow: str) -> set[str]:
        """The declarations of this workflow that other hosts have."""
        for answer in await self.broker.presence.gather(encode(self._word()), PATIENT_GATHER_SECONDS, EVERYBODY_ANSWERED):
            self._heard(decode(answer))
        return {d for word in self._others.values() for w, d in _declared(word) if w == workflow}

    async def open(self) -> None:
        """Answer from now on; greet the others, and hand on what dead ones left."""
        alone = await self._answers(EVERYBODY) is False
        self._stop = await self.broker.presence.answer(self.id, self._asked)
        self._task = asyncio.create_task(self._live(alone))

    async def close(self) -> None:
        """Say goodbye."""
        if self._task is not None:
            self._task.cancel()
        if self._stop is not None:
            await self._stop()
        self.broker.presence.tell(encode(Word(self.id, leaves=True)))

    def _word(self) -> Word:
        return Word(self.id, list(self.host.workflows), self.host.held(), declared=list(self._declared.values()))

    def _asked(self, question: bytes) -> bytes:
        if not question:
            return b"{}"  # a sign of life is all that is wanted
        self._heard(decode(question))
        return encode(self._word())

    def _heard(self, word: Word) -> None:
        before = self._others.get(word.host)
        if word.leaves:
            self._others.pop(word.host, None)
        elif word.host != self.id:
            self._others[word.host] = word
        (self._company.set if self._others else self._company.clear)()
        now = self._others.get(word.host)
        for came_or_went in (before, now) if (before is None) != (now is None) else ():
            if came_or_went is not None and any(self._declared.get(w, d) != d for w, d in _declared(came_or_went)):
                self.changed.set()

    # Looking after the next one -----------------------------------------------------------------------------------

    async def _live(self, alone: bool) -> None:
        await self._carefully(self._greet_first(alone))
        while True:
            await self._company.wait()  # alone there is nobody to look after
            await asyncio.sleep(PROBE_SECONDS)
            await self._carefully(self._look_after_next())

    @staticmethod
    async def _carefully(work: Awaitable[None]) -> None:
        try:
            await work
        except BrokerUnavailable as error:
            log.debug("%s", error)
        except Exception:
            log.exception("what dead hosts held comes back after the lease")

    async def _look_after_next(self) -> None:
        """The hosts form a circle by their ids; each looks after the next one that is not silent."""
        ids = sorted(self._others)
        for following in [id for id in ids if id > self.id] + [id for id in ids if id < self.id]:
            answers = await self._answers(following)
            if answers is False and await self._is_gone(following, {}):
                await self._miss(following)
            if answers is not None:
                break

    async def _miss(self, host: str) -> None:
        log.warning("host %s is gone; what it held is handed on", host)
        self._heard(Word(host, leaves=True))
        self.broker.presence.tell(encode(Word(host, leaves=True)))
        spans = await self._spans()
        await self._hand_on(spans, await self._held(len(self._others) + 1))

    async def _is_gone(self, host: str, known: dict[str, bool]) -> bool:
        """Nobody answers, twice: a connection that is just being made again is no death. One who is silent is not gone."""
        if host not in known:
            known[host] = await self._answers(host) is False and await self._is_still_absent(host)
        return known[host]

    async def _is_still_absent(self, host: str) -> bool:
        await asyncio.sleep(CONFIRM_SECONDS)
        return await self._answers(host) is False

    async def _answers(self, host: str) -> bool | None:
        """None: somebody is there, and silent."""
        try:
            return await self.broker.presence.ask(host) is not None
        except BrokerUnavailable:
            return None

    # What the dead held -------------------------------------------------------------------------------------------

    async def _greet_first(self, alone: bool) -> None:
        """Who starts alone need not wait for answers about runs that somebody who is gone began."""
        spans = await self._spans()
        if alone and spans:
            await self._hand_on(spans, None)
        held = await self._held(EVERYBODY_ANSWERED)
        if spans:
            await self._hand_on(spans, held)

    async def _spans(self) -> dict[str, Unacknowledged]:
        """Where there is something unacknowledged. Read before anybody is asked what he holds."""
        spans = {name: await self.broker.commands.unacknowledged(name) for name in self.host.workflows}
        return {name: span for name, span in spans.items() if span.pending}

    async def _held(self, enough: int) -> set[int]:
        """What all hosts have in hand, this one included."""
        words = [decode(a) for a in await self.broker.presence.gather(encode(self._word()), GATHER_SECONDS, enough)]
        for word in words:
            self._heard(word)
        return {sequence for word in words for sequence in word.held}.union(self.host.held())

    async def _hand_on(self, spans: dict[str, Unacknowledged], held: set[int] | None) -> None:
        """Bring back the deliveries that nobody holds. With `held` unknown only those by which a dead host has begun."""
        gone: dict[str, bool] = {}
        for workflow, span in spans.items():
            mine = held or set[int]()
            if span.pending <= sum(span.after < sequence <= span.until for sequence in mine):
                continue
            found = [c for c in await self.broker.commands.delivered(workflow, span) if c[1] not in mine]
            for at in range(0, len(found), RESCUE_AT_ONCE):
                part = found[at : at + RESCUE_AT_ONCE]
                lost = await asyncio.gather(*(self._is_lost(actor, sequence, held is not None, gone) for actor, sequence in part))
                await self.broker.commands.hand_back(workflow, [c[1] for c, yes in zip(part, lost, strict=True) if yes])

    async def _is_lost(self, actor: ActorKey, sequence: int, unbegun: bool, gone: dict[str, bool]) -> bool:
        """Whether the delivery of this command was in the hands of a dead host. `unbegun`: what nobody began is."""
        try:
            last = await self.broker.log.last(actor)
            message = await self._message(last) if last is not None else None
            if message is not None and message.door != sequence and message.in_seen >= sequence:
                return False  # consumed
            host = maker(message.host) if message is not None and message.door == sequence else await self._began(actor, sequence)
        except ValueUnavailable as error:
            log.debug("%s", error)
            return False  # the lease decides
        return unbegun if host is None else await self._is_gone(host, gone)

    async def _began(self, actor: ActorKey, sequence: int) -> str | None:
        """Who hosts by this door though the actor's own chain does not say so yet: a child in place does, or a live event."""
        for entry in reversed(await self.broker.log.read_tree(actor, sequence)):
            message = await self._message(entry)
            if message is not None and message.door == sequence:
                return maker(message.host)
        for entry in reversed(await self.broker.log.read_live(actor.tree, sequence)):
            if entry.actor == actor:
                try:
                    return maker(decode_live(entry.body).id)
                except NoriaError:
                    continue  # a slip, or somebody else's
        return None

    async def _message(self, entry: Stored) -> facts.FactMessage | None:
        try:
            return envelopes.decode(await parcels.unpack(self.broker, entry.actor.tree, entry.body))
        except NoriaError:
            return None  # of a newer format, or broken: the lease decides


def _declared(word: Word) -> Iterable[tuple[str, str]]:
    return zip(word.workflows, word.declared, strict=False)  # an older build tells of none

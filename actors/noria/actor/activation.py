"""The body of an actor on this worker: one delivery in hand, judged by the three rules, hosted until the actor rests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import cached_property, partial
from math import inf
from typing import TYPE_CHECKING, Any

from noria.actor import endings, owned, resting, sleeping
from noria.actor.drive import drive
from noria.actor.journal import Fenced, Journal
from noria.actor.load import Unreadable
from noria.actor.places import Places
from noria.actor.shared import Teller
from noria.actor.tenure import Tenure
from noria.actor.travel import travel
from noria.clock import now
from noria.contract.facts import Fact, HandedOver, Rested, Started, StepEnded
from noria.errors import BrokerUnavailable, LimitExceeded, NoriaError
from noria.limits import FIRST_RECORD_SECONDS, HAND_OVER_SECONDS, MAX_LOG_MESSAGES, POISON_TAKEOVERS, RECORD_EVERY_FACTS
from noria.machine.state import ENDED, RESTING, Actor, Tree
from noria.ports import Delivery, Refused, Stretch
from noria.workflow.builder import Workflow
from noria.workflow.context import AbortSignal

if TYPE_CHECKING:
    from noria.actor.host import Host

log = logging.getLogger("noria.actor")


class Activation:
    """Hosts the actor of `key`; its in-place children run here as tasks."""

    tree: Tree
    journal: Journal

    def __init__(self, host: Host, workflow: Workflow, delivery: Delivery) -> None:
        self.host, self.broker, self.workflow, self.key = host, host.broker, workflow, delivery.actor
        self.client: Any = host.client
        self.delivery = delivery
        self.others: list[Delivery] = []  # further deliveries of this actor, kept in hand and renewed
        self.cancelled = asyncio.Event()
        self.listeners: set[Callable[[], None]] = set()  # called after each look at what came
        self.recovered = False
        self.tenure = Tenure(host)
        self.lapsed = False  # its delivery was not renewed for longer than the lease: another may host by it
        self.overrun: NoriaError | None = None  # why it shall fail: past the workflow's timeout, or a limit
        self.stopping = False
        self.hosting = False  # and it was taken over from whoever hosted before
        self.interrupted: dict[str, StepEnded] = {}  # path -> what was stopped there
        self.watching = 0  # spread children that we wait for
        self.revision: int | None = None  # of the run's record; a spread child has none
        self.recorded = 0  # the root's last fact that the record included when it was read
        self.unreadable: Sequence[Unreadable] = ()  # passed over when it was loaded, not buried yet
        self.places = Places(workflow, self.key.path)
        self.stretch: Stretch | None = None  # what telemetry watches
        self._main: asyncio.Task[str] | None = None
        self._signal: asyncio.Future[None] | None = None
        self._woken = False
        self._child_rested = False
        self.saving = asyncio.Lock()  # of the record, by one at a time
        self._saved_facts = 0

    @cached_property
    def teller(self) -> Teller:
        return Teller(self.broker, self.key.tree)

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.host.threads, copy_context().run, partial(function, *args))

    # News -------------------------------------------------------------------------------------------------------

    async def nap(self, seconds: float) -> bool:
        """Wait so long, or until there is news: then True."""
        loop = asyncio.get_running_loop()
        if self._woken:
            self._woken = False
            return True
        self._signal = loop.create_future()
        timer = loop.call_later(seconds, self._wake_up)
        try:
            await self._signal
        finally:
            timer.cancel()
        woken, self._woken = self._woken, False
        return woken

    def forget_news(self) -> None:
        """Everything that came until now is about to be read."""
        self.tenure.suspect = self._woken = self._child_rested = False

    def wake(self) -> None:
        """News: look at commands and children."""
        self._woken = True
        self._wake_up()

    def wake_by_child(self) -> None:
        """News of a child that came to rest: look at children."""
        self._child_rested = True
        self._wake_up()

    def _wake_up(self, _: object = None) -> None:
        if self._signal is not None and not self._signal.done():
            self._signal.set_result(None)

    # Hosting ----------------------------------------------------------------------------------------------------

    @property
    def takes_over(self) -> bool:
        """Whether somebody else may have hosted by this delivery."""
        return self.delivery.count > 1 or self.tree.root.status == "active"

    async def serve(self, fresh: bool, mine: bool) -> bool:
        """True when the actor rests and the delivery is acknowledged; False when somebody else wrote."""
        root, first_record, expiry, status = self.tree.root, None, None, "active"
        self.journal.in_seen = max([s for s, path in self.tree.pending if path == self.key.path] + [root.in_seen])
        await self.host.take_slot(self)
        if self.lapsed:
            self.host.free_slot(self)
            return False
        self.tree.hosted = True
        if self.host.observer is not None:
            self.stretch = self.journal.watched_by(self.host.observer.hosts(self.delivery, self.tree.traceparent))
        try:
            travels = bool(self.tree.travels) and root.status != "active"
            if travels:
                await travel(self)
            elif root.last == 0 and self.key.path == "":
                self.journal.opening[""] = [Started(root.input, self.tree.resource_id, now())]
            expiry = endings.expiry(self)
            if not travels and not fresh and self.takes_over:
                self.recovered = True
                if not mine:
                    await self.journal.take_over()
            elif self.key.path == "":
                loop = asyncio.get_running_loop()
                first_record = loop.call_later(FIRST_RECORD_SECONDS, self.save_soon)
            self.hosting = True
            if self.tree.takeovers > POISON_TAKEOVERS:
                await endings.give_up(self)
            else:
                await self._run()
            await self._rest()
            self._acknowledge()
            status, self.hosting = root.status, False
            return True
        except (Refused, Fenced):
            self.hosting = False
            return False
        finally:
            for timer in (first_record, expiry):
                if timer is not None:
                    timer.cancel()
            await self.stop()
            if self.stretch is not None:
                self.stretch.end(status)
            self.host.free_slot(self)

    def _acknowledge(self) -> None:
        """The door, and what else in hand the actor consumed: each would be looked at by a reading of the whole tree."""
        self.delivery.ack()
        consumed = [d for d in self.others if d.sequence <= self.tree.root.in_seen]
        self.others = [d for d in self.others if d not in consumed]
        for delivery in consumed:
            delivery.ack()

    async def _run(self) -> None:
        root = self.tree.root
        self.interrupted.clear()
        while True:
            if self.tree.cancel and root.status not in ENDED:
                status = "canceled"
                break
            self._main = asyncio.create_task(drive(self, root))
            status = await self._supervise()
            if status != "again":
                break
        if root.status in ENDED:
            return
        if self.overrun is not None and status not in RESTING - {"waiting"}:
            await endings.fail(self, self.overrun)
        elif status == "canceled":
            await endings.cancel(self)
        elif status == "waiting" and self._rests_already:
            return  # others may have acknowledged the door: whoever holds the next command goes on
        elif root.status != status or root.in_seen < self.journal.in_seen:
            await sleeping.rearm(self)
            if status == "waiting":
                await endings.arm_expiry(self, inf)
            await self.record(root, [Rested(status, now())])

    async def _supervise(self) -> str:
        """Wait for the drive; look at commands when woken. The status that it came to, or "again" when a command came
        that the drive may have passed already."""
        loop, main, seen = asyncio.get_running_loop(), self._main, self.journal.in_seen
        assert main is not None
        main.add_done_callback(self._wake_up)
        while True:
            if not main.done() and not self._woken and not self._child_rested:
                self._signal = loop.create_future()
                reread = loop.call_later(self.host.lease / 3, self._wake_up) if self.watching else None
                await self._signal
                if reread is not None:
                    reread.cancel()
            if main.done() and (not self._woken or self._outcome(main) in ENDED):
                return self._came_to(main, seen)
            only_children = self._child_rested and not self._woken
            self._woken = self._child_rested = False
            await self._look(only_children)
            if self.tree.cancel and self.tree.root.status not in ENDED:
                return "canceled"
            if self.overrun is not None and not main.done():
                return "overrun"
            if main.done():
                return self._came_to(main, seen)

    def _came_to(self, main: asyncio.Task[str], seen: int) -> str:
        status = self._outcome(main)
        if status == "waiting" and self._rests_already:
            return status
        return "again" if status in RESTING - ENDED and self.journal.in_seen > seen else status

    @property
    def _rests_already(self) -> bool:
        """Whether this host recorded that the actor waits: its timer may have come meanwhile."""
        return self.tree.root.status == "waiting" and self.tree.root.host == self.nonce

    @property
    def nonce(self) -> str:
        """Who signs; empty before the first look."""
        return self.journal.nonce if hasattr(self, "journal") else ""

    @staticmethod
    def _outcome(main: asyncio.Task[str]) -> str:
        if main.cancelled():
            raise asyncio.CancelledError
        error = main.exception()
        if isinstance(error, AbortSignal):
            return "canceled"
        if error is not None:
            raise error
        return main.result()

    async def _look(self, only_children: bool) -> None:
        """Read what came: always from the subjects, never from news, which also tell of appends that were refused."""
        if self.watching:
            await self.journal.catch_up()
        if not only_children:
            for entry in await self.broker.commands.read(self.key, self.journal.in_seen):
                await self.journal.take_in(entry)
                self.journal.in_seen = entry.sequence  # a rest that covers one of several only leaves the next to wake the run
                if self.stretch is not None:
                    self.stretch.took_in(entry.body)
        self._prove()
        for tell in self.listeners:
            tell()

    def _prove(self) -> None:
        """A suspect that got on is none any more: another one's turn."""
        if self.host.trial.suspect is self and not self.tree.takeovers:
            self.host.trial.leave(self)

    async def stop(self) -> None:
        """Nothing runs here any more, and nothing is under way; what ignored that it was stopped was the last thing."""
        self.stopping = True
        if self._main is not None:
            await owned.stop([self._main])
        self.stopping = False
        self.journal.adopted.clear()
        await self.journal.settle()

    async def hand_over(self) -> None:
        """Once nothing runs here any more: give the deliveries back, and say so first where a run is left half-way, so that
        its next take-over is no sign of a death. Without an answer in time it counts as one."""
        root, deliveries = self.tree.root if self.hosting else None, [self.delivery, *self.others]
        if root is not None and root.status not in ENDED and (root.status not in RESTING or root.in_seen < self.journal.in_seen):
            try:
                async with asyncio.timeout(HAND_OVER_SECONDS):
                    await self.journal.append(root, [HandedOver(now())])
            except (Refused, Fenced):
                deliveries = self.others  # somebody else hosts by the door
            except (NoriaError, TimeoutError) as error:
                log.debug("run %s is handed over without a word: %r", self.key.run, error)
        for delivery in deliveries:
            delivery.hand_back()

    def fail_soon(self, error: NoriaError) -> None:
        """End the run with this error, whatever runs."""
        self.overrun = error
        self.wake()

    async def _rest(self) -> None:
        """After the resting fact: record, then news; the acknowledgement is the caller's."""
        if self.key.path == "":
            await resting.save(self)
            resting.announce(self)
        else:
            self.host.tell_those_above(self)

    # What the tasks use -----------------------------------------------------------------------------------------

    async def record(self, actor: Actor, facts: list[Fact]) -> None:
        """Append; before a fact by which the run rests its callbacks have their say."""
        if actor is self.tree.root and self.key.path == "" and (self.workflow.on_finish or self.workflow.on_error):
            await resting.call_back(self, facts)
        await self.journal.append(actor, facts)
        self._prove()
        if self.tree.facts - self._saved_facts >= RECORD_EVERY_FACTS:
            self._saved_facts = self.tree.facts
            if self.tree.facts >= MAX_LOG_MESSAGES:
                self.fail_soon(LimitExceeded(f"run {self.key.run!r} has {self.tree.facts} messages in its log, at most {MAX_LOG_MESSAGES}"))
            if self.key.path == "":
                self.save_soon()

    def check_lease(self) -> None:
        """Before each step: one who was stopped or blocked beyond the lease is no host until he has read again."""
        if self.tenure.is_doubtful():
            raise Fenced

    def save_soon(self) -> None:
        """A record of an active run, not awaited by the run."""
        if self.tree.root.status not in RESTING:
            self.host.background(self._save_quietly())

    def save_again(self) -> None:
        """A record of a run that is active for long: its facts age out."""
        if self.key.path == "" and self._main is not None and not self._main.done():
            self.save_soon()

    async def _save_quietly(self) -> None:
        try:
            await resting.save(self, active=True)
        except (NoriaError, Refused, BrokerUnavailable) as error:
            log.warning("the record of run %s waits for the next chance: %s", self.key.run, error)

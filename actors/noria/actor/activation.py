"""The body of an actor on one worker: the delivery in hand, what is known of the actor, and what its tasks use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from noria.actor import owned, resting
from noria.actor.journal import Fenced, Journal
from noria.actor.load import Unreadable
from noria.actor.places import Places
from noria.actor.shared import Teller
from noria.actor.tenure import Tenure
from noria.contract.facts import Fact, StepEnded
from noria.errors import BrokerUnavailable, LimitExceeded, NoriaError
from noria.limits import MAX_LOG_MESSAGES, RECORD_EVERY_FACTS
from noria.machine.state import RESTING, Actor, Tree
from noria.ports import Delivery, Refused, Stretch
from noria.workflow.builder import Workflow

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
        self.tenure = Tenure(host)
        self.lapsed = False  # its delivery was not renewed for longer than the lease: another may host by it
        self.places = Places(workflow, self.key.path)
        self.stretch: Stretch | None = None  # what telemetry watches
        # what was read
        self.revision: int | None = None  # of the run's record; a spread child has none
        self.recorded = 0  # the root's last fact that the record included when it was read
        self.unreadable: Sequence[Unreadable] = ()  # passed over when it was loaded, not buried yet
        # while it hosts
        self.hosting = False  # from where it began, or took over, until it rests or is fenced
        self.recovered = False  # it took over: a step may have run before
        self.main: asyncio.Task[str] | None = None  # drives the root; the tasks of children are below it
        self.watching = 0  # spread children that are waited for
        self.after_look: dict[Callable[[], None], None] = {}  # called after each look at what came
        self.cancelled = asyncio.Event()
        self.overrun: NoriaError | None = None  # why it shall fail: past the workflow's timeout, or a limit
        self.stopping = False
        self.interrupted: dict[str, StepEnded] = {}  # path -> what was stopped there
        self.saving = asyncio.Lock()  # the record is put by one at a time
        self._saved_facts = 0
        # news: hints that something came; whoever hears them reads
        self.woken = False  # commands, or anything else
        self.child_rested = False  # facts of a child
        self._signal: asyncio.Future[None] | None = None

    @cached_property
    def teller(self) -> Teller:
        return Teller(self.broker, self.key.tree)

    @property
    def nonce(self) -> str:
        """Who signs; empty before the first look."""
        return self.journal.nonce if hasattr(self, "journal") else ""

    # News -------------------------------------------------------------------------------------------------------

    async def nap(self, seconds: float) -> bool:
        """Wait so long, or until there is news: then True."""
        if not self.woken:
            await self.signalled(seconds)
        woken, self.woken = self.woken, False
        return woken

    async def signalled(self, seconds: float | None = None) -> None:
        """Until somebody signals, at most so long."""
        loop = asyncio.get_running_loop()
        self._signal = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self.signal)
        try:
            await self._signal
        finally:
            if timer is not None:
                timer.cancel()

    def signal(self, _: object = None) -> None:
        """Let whoever waits for news go on, and look for himself."""
        if self._signal is not None and not self._signal.done():
            self._signal.set_result(None)

    def forget_news(self) -> None:
        """Everything that came until now is about to be read."""
        self.tenure.suspect = self.woken = self.child_rested = False

    def wake(self) -> None:
        """News: look at commands and children."""
        self.woken = True
        self.signal()

    def wake_by_child(self) -> None:
        """News of a child that came to rest: look at children."""
        self.child_rested = True
        self.signal()

    # What the tasks use -----------------------------------------------------------------------------------------

    async def record(self, actor: Actor, facts: list[Fact]) -> None:
        """Append; before a fact by which the run rests its callbacks have their say."""
        if actor is self.tree.root and self.key.path == "" and (self.workflow.on_finish or self.workflow.on_error):
            await resting.call_back(self, facts)
        await self.journal.append(actor, facts)
        self.prove()
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

    def prove(self) -> None:
        """A suspect that got on is none any more: another one's turn."""
        if self.host.trial.suspect is self and not self.tree.takeovers:
            self.host.trial.leave(self)

    def fail_soon(self, error: NoriaError) -> None:
        """End the run with this error, whatever runs."""
        self.overrun = error
        self.wake()

    async def stop(self) -> None:
        """Nothing runs here any more, and nothing is under way; what ignored that it was stopped was the last thing."""
        self.stopping = True
        if self.main is not None:
            await owned.stop([self.main])
        self.stopping = False
        self.journal.adopted.clear()
        await self.journal.settle()

    # The record of a run that is active ------------------------------------------------------------------------

    def save_soon(self) -> None:
        """A record of an active run, not awaited by the run."""
        if self.tree.root.status not in RESTING:
            self.host.background(self._save_quietly())

    def save_again(self) -> None:
        """A record of a run that is active for long: its facts age out."""
        if self.key.path == "" and self.main is not None and not self.main.done():
            self.save_soon()

    async def _save_quietly(self) -> None:
        try:
            await resting.save(self, active=True)
        except (NoriaError, Refused, BrokerUnavailable) as error:
            log.warning("the record of run %s waits for the next chance: %s", self.key.run, error)

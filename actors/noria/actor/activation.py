"""The body of an actor on this worker: one delivery in hand, judged by the three rules, hosted until the actor rests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from noria.actor import handlers, parcels, resting
from noria.actor.drive import drive
from noria.actor.journal import Fenced, Journal
from noria.actor.load import fold, load
from noria.clock import now
from noria.contract import commands
from noria.contract.facts import Answered, Fact, Finished, Rested, Started
from noria.contract.values import error_info
from noria.errors import BrokerUnavailable, GraphMismatch, NoriaError, StepTimeout
from noria.limits import FIRST_RECORD_SECONDS, POISON_TAKEOVERS, RECORD_EVERY_FACTS
from noria.machine.fold import fold_command
from noria.machine.lease import judge
from noria.machine.state import ENDED, RESTING, Actor, Tree, parent, segment, split
from noria.machine.tasks import Unit
from noria.ports import ActorKey, Delivery, Refused
from noria.workflow.builder import Workflow
from noria.workflow.context import AbortSignal
from noria.workflow.entries import LoopEntry, MapEntry, SleepEntry, ThenEntry
from noria.workflow.steps import Step

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
        self.cancelled, self.stirred = asyncio.Event(), asyncio.Event()
        self.recovered = False
        self.suspect = False  # not renewed for longer than the lease: read before the next step
        self.expired = False  # past the workflow's timeout
        self.watching = 0  # spread children that we wait for
        self.revision: int | None = None  # of the run's record; a spread child has none
        self.recorded = 0  # the root's last fact that the record included when it was read
        self._units: dict[str, Unit] = {}
        self._main: asyncio.Task[str] | None = None
        self._signal: asyncio.Future[None] | None = None
        self._woken = False
        self._saving = asyncio.Lock()
        self._saved_facts = 0

    # The definition ---------------------------------------------------------------------------------------------

    def unit(self, path: str) -> Unit:
        """What an actor runs. Raises GraphMismatch when this version of the graph has no such place."""
        found = self._units.get(path)
        if found is None:
            found = self._units[path] = self.workflow if path == "" else self._find(path)
        return found

    def _find(self, path: str) -> Unit:
        above, name = self.unit(parent(path)), split(segment(path))[0]
        if isinstance(above, Step) or name not in above.units:
            raise GraphMismatch(f"workflow {self.workflow.id!r}, version {self.workflow.version!r}, has no place {path!r}")
        return above.units[name]

    def workflow_of(self, actor: Actor) -> Workflow:
        """The innermost workflow around an actor."""
        unit = self.unit(actor.path)
        if isinstance(unit, Step):
            unit = self.unit(parent(actor.path))
        assert isinstance(unit, Workflow)
        return unit

    def scope(self, actor: Actor) -> Actor | None:
        """The actor of the innermost workflow; None when it lives on another host."""
        if not isinstance(self.unit(actor.path), Step):
            return actor
        return self.tree.actor(parent(actor.path)) if actor.path != self.key.path else None

    def init_data(self, actor: Actor) -> Any:
        scope = self.scope(actor)
        return actor.init if scope is None else scope.input

    def result_of(self, actor: Actor, step: str) -> tuple[Any] | None:
        """The output of a step of the same workflow, in a tuple; None when it has none."""
        scope = self.scope(actor)
        if scope is None:
            raise NoriaError(
                "step_result() cannot see the parent from a child that was spread: hand the value on in the item, or use placement='local'"
            )
        return handlers.result_of(self, scope, step)

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.host.threads, function, *args)

    # The delivery -----------------------------------------------------------------------------------------------

    async def attend(self) -> None:
        """Judge the delivery, host if the rules say so, until it is acknowledged or left to another."""
        pause, hosted_as, fresh = 0.02, None, self.host.is_fresh(self.delivery)
        while True:
            await self._load(fresh)
            match judge(self.tree, self.delivery.sequence, hosted_as):
                case "drop":
                    return None
                case "ack":
                    if self.revision is not None and self.tree.root.last > self.recorded and self.tree.root.status in RESTING:
                        await resting.save(self)  # the former host may have died before it could
                    return self.delivery.ack()
                case "host":
                    if await self._host(fresh):
                        return None
                    hosted_as, fresh = self.journal.nonce, False
                case "wait":
                    if self._swap():
                        hosted_as = None
                        continue
                    self.host.sidestep(self)
                    self.broker.news.nudge(self.key.tree, self.journal.nonce)
                    await self._nap(pause)
                    pause = min(pause * 2, 1.0)

    async def _load(self, fresh: bool) -> None:
        self.suspect, self._woken = False, False
        self.stirred.clear()
        if fresh:
            self.tree, self.revision = Tree(self.key.path), 0 if self.key.path == "" else None
            body = await parcels.unpack(self.broker, self.key.tree, self.delivery.body)
            fold_command(self.tree, self.delivery.sequence, self.key.path, commands.decode(body))
        else:
            loaded = await load(self.broker, self.key)
            self.tree, self.recorded = loaded.tree, loaded.recorded
            self.revision = loaded.revision if self.key.path == "" else None
        self.journal = Journal(self.broker, self.key, self.tree, self.delivery.sequence, self.host.nonces)

    def _swap(self) -> bool:
        """This process may hold the very delivery that may host: a waiting one must not stand before it."""
        for n, other in enumerate(self.others):
            if judge(self.tree, other.sequence) != "wait":
                self.others[n], self.delivery = self.delivery, other
                return True
        return False

    async def _nap(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._woken:
            self._woken = False
            return
        self._signal = loop.create_future()
        timer = loop.call_later(seconds, self._wake_up)
        try:
            await self._signal
        finally:
            timer.cancel()
        self._woken = False

    def wake(self) -> None:
        """News: look at commands and children."""
        self._woken = True
        self._wake_up()

    def _wake_up(self, _: object = None) -> None:
        if self._signal is not None and not self._signal.done():
            self._signal.set_result(None)

    # Hosting ----------------------------------------------------------------------------------------------------

    async def _host(self, fresh: bool) -> bool:
        """True when the actor rests and the delivery is acknowledged; False when somebody else wrote."""
        root, first_record, expiry = self.tree.root, None, self._set_expiry()
        self.journal.in_seen = max([s for s, path in self.tree.pending if path == self.key.path] + [root.in_seen])
        await self.host.take_slot(self)
        self.tree.hosted = True
        try:
            if root.last == 0 and self.key.path == "":
                self.journal.opening[""] = [Started(root.input, self.tree.resource_id, now())]
            if not fresh and (self.delivery.count > 1 or root.status == "active"):
                self.recovered = True
                await self.journal.take_over()
            elif self.key.path == "":
                loop = asyncio.get_running_loop()
                first_record = loop.call_later(FIRST_RECORD_SECONDS, self.save_soon)
            if self.tree.takeovers > POISON_TAKEOVERS:
                await self._give_up()
            else:
                await self._run()
            await self._rest()
            self.delivery.ack()
            return True
        except (Refused, Fenced):
            return False
        finally:
            for timer in (first_record, expiry):
                if timer is not None:
                    timer.cancel()
            await self._stop()
            self.host.free_slot(self)

    async def _run(self) -> None:
        root = self.tree.root
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
        if self.expired and status not in RESTING:
            await self._time_out()
        elif status == "canceled":
            await self._cancel()
        elif root.status != status or root.in_seen < self.journal.in_seen:
            await self.record(root, [Rested(status, now())])

    async def _supervise(self) -> str:
        """Wait for the drive; look at commands when woken. The status that it came to, or "again"."""
        loop, main = asyncio.get_running_loop(), self._main
        assert main is not None
        main.add_done_callback(self._wake_up)
        while True:
            if not main.done() and not self._woken:
                self._signal = loop.create_future()
                reread = loop.call_later(self.host.lease / 3, self._wake_up) if self.watching else None
                await self._signal
                if reread is not None:
                    reread.cancel()
            if main.done() and (not self._woken or self._outcome(main) in ENDED):
                return self._outcome(main)
            self._woken = False
            seen = self.journal.in_seen
            await self._look()
            if self.tree.cancel and self.tree.root.status not in ENDED:
                return "canceled"
            if self.expired and not main.done():
                return "expired"
            if main.done():
                return "again" if self.journal.in_seen > seen else self._outcome(main)

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

    async def _look(self) -> None:
        """Read what came: always from the subjects, never from news, which also tell of appends that were refused."""
        tree = self.tree
        if self.watching:
            for entry in await self.broker.log.read_tree(self.key, tree.cursor):
                if entry.actor.path == self.key.path and entry.sequence > tree.root.last:
                    raise Fenced
                await fold(self.broker, tree, entry)
        for entry in await self.broker.commands.read(self.key, self.journal.in_seen):
            await fold(self.broker, tree, entry)
            self.journal.in_seen = entry.sequence
        self.stirred.set()

    async def _stop(self) -> None:
        if self._main is not None and not self._main.done():
            self._main.cancel()
            await asyncio.wait([self._main])
        await self.journal.settle()

    def _set_expiry(self) -> asyncio.TimerHandle | None:
        """Wake up at the workflow's timeout: wall time since the start, suspensions excluded."""
        timeout, began = self.workflow.timeout_seconds, self.tree.created_at
        if timeout is None or began is None or self.key.path:
            return None
        records = [s for a in self.tree.actors.values() for s in a.steps.values()]
        parked = sum(s.resumed_at - s.suspended_at for s in records if s.resumed_at is not None and s.suspended_at is not None)
        if self.tree.root.status == "suspended" and self.tree.updated_at is not None:
            parked += now() - self.tree.updated_at
        return asyncio.get_running_loop().call_later(max(0.0, began + timeout + max(0.0, parked) - now()), self._expire)

    def _expire(self) -> None:
        self.expired = True
        self.wake()

    async def _time_out(self) -> None:
        await self._stop()
        error = error_info(StepTimeout(f"workflow {self.workflow.id!r} took longer than {self.workflow.timeout_seconds} s"))
        if self.tree.root.status not in ENDED:
            await self.record(self.tree.root, [Finished("failed", now(), error=error)])

    async def _cancel(self) -> None:
        self.cancelled.set()
        await self._stop()
        command = commands.encode(commands.Cancel(self.journal.nonces.next(), now()))
        for actor in self.tree.below(self.key.path):
            if actor.started and actor.status not in ENDED:
                await self.broker.commands.send(self.journal.key_of(actor), command)
                self.broker.news.nudge(self.key.tree, self.journal.nonce)
        if self.key.path and not self.tree.cancel:  # ctx.abort() in a spread child: the run as a whole is meant
            await self.broker.commands.send(ActorKey(*self.key.tree), command)
            self.broker.news.nudge(self.key.tree, self.journal.nonce)
        if self.tree.root.status not in ENDED:
            await self.record(self.tree.root, [Finished("canceled", now())])

    async def _give_up(self) -> None:
        message = f"the run took its worker down {self.tree.takeovers} times in a row without progress"
        error: dict[str, Any] = {"type": "Poisoned", "message": message, "attributes": {}, "cause": None}
        await self.record(self.tree.root, [Finished("failed", now(), error=error)])
        await self.broker.triggers.bury("poison", self.key.workflow, self.delivery.body, {"noria-run": self.key.run}, message)

    async def _rest(self) -> None:
        """After the resting fact: record, then news; the acknowledgement is the caller's."""
        if self.key.path == "":
            await resting.save(self)
            resting.announce(self)
        else:
            self.broker.news.nudge(self.key.tree, self.journal.nonce)

    # What the tasks use -----------------------------------------------------------------------------------------

    async def record(self, actor: Actor, facts: list[Fact]) -> None:
        """Append; before a fact by which the run rests its callbacks have their say."""
        if actor is self.tree.root and self.key.path == "" and (self.workflow.on_finish or self.workflow.on_error):
            await resting.call_back(self, facts)
        await self.journal.append(actor, facts)
        if self.tree.facts - self._saved_facts >= RECORD_EVERY_FACTS and self.key.path == "":
            self._saved_facts = self.tree.facts
            self.save_soon()

    async def answer(self, actor: Actor, fact: Answered) -> None:
        """A loop's answer is packed with the next fact where that is on the same chain; others are stored at once,
        so that no successor can come to another answer than the children that began by it."""
        unit = self.unit(actor.path)
        assert isinstance(unit, Workflow)
        entry = unit.entries[actor.position]
        if isinstance(entry, LoopEntry) and isinstance(entry.unit, Step) and self._goes_on_here(unit, actor, entry, fact):
            actor.answers[fact.entry] = fact.value
            self.journal.opening.setdefault(actor.path, []).append(fact)
        else:
            await self.record(actor, [fact])

    @staticmethod
    def _goes_on_here(unit: Workflow, actor: Actor, entry: LoopEntry, fact: Answered) -> bool:
        if bool(fact.value) != entry.until or actor.position + 1 == len(unit.entries):
            return True
        following = unit.entries[actor.position + 1]
        return isinstance(following, (MapEntry, SleepEntry)) or (
            isinstance(following, (ThenEntry, LoopEntry)) and isinstance(following.unit, Step)
        )

    def check_lease(self) -> None:
        """Before each step: one who was stopped or blocked beyond the lease is no host until he has read again."""
        if self.suspect or self.host.overslept():
            raise Fenced

    def save_soon(self) -> None:
        """A record of an active run, not awaited by the run."""
        if self.tree.root.status not in RESTING:
            self.host.background(self._save_quietly())

    async def _save_quietly(self) -> None:
        try:
            await resting.save(self, active=True)
        except (NoriaError, Refused, BrokerUnavailable) as error:
            log.warning("the record of run %s waits for the next chance: %s", self.key.run, error)

"""One worker's hosting: deliveries in, activations, slots, leases renewed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Any

from noria.actor import resting
from noria.actor.activation import Activation
from noria.actor.around import Surroundings
from noria.actor.attending import attend
from noria.actor.hosting import hand_over, say_that_it_leaves
from noria.actor.notices import Notices
from noria.actor.peers import Peers
from noria.actor.shared import Listener
from noria.actor.trial import Trial
from noria.clock import monotonic, now
from noria.errors import BrokerUnavailable, GraphMismatch, NewerFormat, NoriaError, ValueUnavailable
from noria.ids import Nonces
from noria.limits import CALLED_KEPT, CLOCK_SECONDS, MAX_IN_HAND, RECORD_EVERY_SECONDS, STEP_BACK_SECONDS, THREADS
from noria.machine.state import above, parent
from noria.ports import ActorKey, Broker, Delivery, Observer, Receiver, RunKey
from noria.workflow.builder import Workflow

log = logging.getLogger("noria.host")


class Host:
    """Takes deliveries of its workflows' commands and hosts what the rules give it, at most `concurrency` at once."""

    def __init__(
        self, broker: Broker, client: Any, workflows: Iterable[Workflow], concurrency: int, lease: float, grace: float,
        observer: Observer | None = None, steps: bool = True,
    ) -> None:  # fmt: skip
        self.broker, self.client, self.concurrency, self.lease, self.grace = broker, client, concurrency, lease, grace
        self.workflows = {w.id: w for w in workflows}
        self.nonces, self.observer = Nonces(), observer
        self.steps = steps  # whether step handlers run here, or are called elsewhere
        self.threads = ThreadPoolExecutor(THREADS, "noria-step")
        self.peers, self.surroundings, self.listener = Peers(self), Surroundings(broker), Listener(broker)
        self.trial, self.notices = Trial(), Notices()
        self._activations: dict[ActorKey, Activation] = {}
        self._of_run: dict[RunKey, dict[Activation, None]] = {}  # in order, as all that is gone through: a simulated world has one course
        self._slots: set[Activation] = set()
        self._incoming: set[Activation] = set()  # no slot yet: not judged, or waiting for one; each may need one
        self._told: set[tuple[RunKey, str]] = set()  # run and path of those above whose children rested in this turn
        self._freed = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._receivers: list[Receiver] = []
        self._unsubscribe: list[Any] = []
        self._called: dict[RunKey, None] = {}  # runs that are not hosted here, of which there was news; the oldest first
        self._opened_at = inf  # wall clock, epoch seconds
        self._renewed = monotonic()
        self._renewer: asyncio.Task[None] | None = None
        self._closing = self._waking = False

    async def open(self) -> None:
        """Begin to receive."""
        self._renewed = monotonic()
        self._renewer = asyncio.create_task(self._renew())
        await self.peers.open()
        for name in self.workflows:
            self._unsubscribe.append(await self.broker.news.on_nudge(name, self._nudged))
            receiver = await self.broker.commands.receive(name, self.lease, self._deliver, self._room)
            self._receivers.append(receiver)
        self._opened_at = now()

    async def close(self) -> None:
        """Drain: running activations get `grace` seconds, then what is left is handed over at once."""
        self._closing = True
        for receiver in self._receivers:
            await receiver.close()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=self.grace if self._slots else 0)
        left = list(self._activations.values())
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(hand_over(activation) for activation in left))
        for unsubscribe in self._unsubscribe:
            await unsubscribe()
        await self.peers.close()
        if self._renewer is not None:
            self._renewer.cancel()
        self.threads.shutdown(wait=False, cancel_futures=True)

    # Deliveries -------------------------------------------------------------------------------------------------

    def _room(self) -> int:
        return 0 if self._closing else max(0, self.concurrency - len(self._slots) - len(self._incoming))

    def _deliver(self, delivery: Delivery) -> None:
        workflow = self.workflows.get(delivery.actor.workflow)
        if workflow is None or self._closing:
            return delivery.hand_back(1.0)
        if (self._waking or self.overslept()) and self.peers.have(workflow.id):
            return self._wake_up()  # it may have come while we slept, and be another's by now; else it comes again
        if self.observer is not None:
            self.observer.delivered(delivery)
        current = self._activations.get(delivery.actor)
        if current is None:
            return self._begin(Activation(self, workflow, delivery))
        for n, known in enumerate([current.delivery, *current.others]):
            if known.sequence == delivery.sequence:  # our own lease came back: it goes on under the new delivery
                if n == 0:
                    current.delivery, current.lapsed = delivery, False
                else:
                    current.others[n - 1] = delivery
                return None
        current.others.append(delivery)
        if len(current.others) > MAX_IN_HAND:  # the oldest stay: one of them may host
            current.others.sort(key=lambda d: d.sequence)
            current.others.pop().hand_back(1.0)
        return current.wake()

    def held(self) -> list[int]:
        """The sequences of the commands in hand."""
        return [delivery.sequence for a in self._activations.values() for delivery in (a.delivery, *a.others)]

    def _begin(self, activation: Activation) -> None:
        self._activations[activation.key] = activation
        self._of_run.setdefault(activation.key.tree, {})[activation] = None
        self._incoming.add(activation)
        task = asyncio.create_task(self._serve(activation))
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    async def _serve(self, activation: Activation) -> None:
        """An activation's life, then that of the next delivery which waited behind it."""
        try:
            await attend(activation)
        except asyncio.CancelledError:
            raise
        except (GraphMismatch, NewerFormat, ValueUnavailable) as error:
            await self._step_back(activation, error)
        except BrokerUnavailable as error:
            log.warning("run %s is left to the next delivery: %s", activation.key.run, error)
            if await say_that_it_leaves(activation):
                activation.delivery.hand_back(1.0)
        except Exception:
            log.exception("run %s of workflow %r is handed back", activation.key.run, activation.key.workflow)
            activation.delivery.hand_back(max(1.0, _patience(activation.delivery)))
        self.trial.leave(activation)
        self.sidestep(activation)
        del self._activations[activation.key]
        of_run = self._of_run[activation.key.tree]
        del of_run[activation]
        if not of_run:
            del self._of_run[activation.key.tree]
        waiting = sorted(activation.others, key=lambda d: d.sequence)
        if waiting:
            following = Activation(self, activation.workflow, waiting[0])
            following.others = waiting[1:]
            self._begin(following)

    async def _step_back(self, activation: Activation, error: NoriaError) -> None:
        """Leave the run to a worker that can host it, longer each time; it counts as nobody's failure. The record says why."""
        delay = _patience(activation.delivery)
        log.warning("this worker steps back from run %s for %.2f s: %s", activation.key.run, delay, error)
        if isinstance(error, GraphMismatch):
            await resting.note_misfit(activation, str(error))
        activation.delivery.hand_back(delay)

    def is_fresh(self, delivery: Delivery) -> bool:
        """Whether a delivery says all that there is to know: a start, the first one, young, delivered for the first time,
        and nothing came for its run while it waited, such as a cancel: this host would have heard of it."""
        young = -CLOCK_SECONDS < now() - delivery.time < self.lease / 2 and delivery.time >= self._opened_at
        alone = delivery.count == 1 and delivery.after == 0 and delivery.actor.tree not in self._called
        return young and alone and b'"kind":"start"' in delivery.body[:32]

    def _nudged(self, run: RunKey, sender: str) -> None:
        """`sender`: the nonce of an activation, or who else it is; with a path when that child came to rest, which
        concerns those above it only."""
        nonce, _, rested = sender.partition(" ")
        if rested:
            for path in above(rested):
                activation = self._activations.get(ActorKey(*run, path))
                if activation is not None:
                    activation.wake_by_child()
            return
        if run not in self._of_run:
            self._called[run] = None
            if len(self._called) > CALLED_KEPT:
                del self._called[next(iter(self._called))]
        for activation in self._of_run.get(run, ()):
            if activation.nonce != nonce:
                activation.wake()

    def tell_those_above(self, activation: Activation) -> None:
        """A child came to rest. One word for all siblings that do so in this turn of the loop: whoever hears it reads."""
        key = activation.key
        block = (key.tree, parent(key.path))
        if block not in self._told:
            if not self._told:
                asyncio.get_running_loop().call_soon(self._told.clear)
            self._told.add(block)
            self.broker.news.nudge(key.tree, f"{activation.nonce} {key.path}")

    # Slots ------------------------------------------------------------------------------------------------------

    async def take_slot(self, activation: Activation) -> None:
        """Wait for a free slot; one that is held is kept."""
        while activation not in self._slots and len(self._slots) >= self.concurrency:
            self._freed.clear()
            await self._freed.wait()
        self._incoming.discard(activation)
        self._slots.add(activation)

    def sidestep(self, activation: Activation) -> None:
        """A delivery that only waits to be judged again, or is done, needs no slot."""
        if activation in self._incoming:
            self._incoming.discard(activation)
            self._top_up()

    def _top_up(self) -> None:
        for receiver in self._receivers:
            receiver.top_up()

    def free_slot(self, activation: Activation) -> None:
        self.trial.leave(activation)
        if activation in self._slots:
            self._slots.discard(activation)
            self._freed.set()
            self._top_up()

    # Leases -----------------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        recorded = self._renewed
        while True:
            await asyncio.sleep(self.lease / 3)
            if self.overslept():
                self._wake_up()
            self._renewed = monotonic()
            for activation in self._activations.values():
                for delivery in (activation.delivery, *activation.others):
                    delivery.renew()
            if self._renewed - recorded > RECORD_EVERY_SECONDS:
                recorded = self._renewed
                for activation in self._activations.values():
                    activation.save_again()

    def _wake_up(self) -> None:
        """What is in hand may be in another's by now, where there is another: what is under way is recorded if nobody wrote
        since, and nothing goes on by it."""
        for activation in self._activations.values():
            activation.tenure.suspect = True
            if self.peers.have(activation.workflow.id):
                activation.lapsed = True
                activation.others.clear()
        if not self._waking:
            self._waking = True
            self.background(self._catch_up())

    async def _catch_up(self) -> None:
        """Until everything that was on its way to us has come: an answer stands behind it in the line."""
        try:
            await self.broker.presence.ask(self.peers.id)
        except NoriaError as error:
            log.debug("%s", error)
        finally:
            self._waking = False

    def overslept(self) -> bool:
        """Whether the last renewal is older than the lease: somebody else may host by now."""
        return monotonic() - self._renewed > self.lease

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """A task of the host's own."""
        task = asyncio.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)


def _patience(delivery: Delivery) -> float:
    """Seconds until a delivery that cannot be served here is to come again: longer each time."""
    return min(STEP_BACK_SECONDS, 0.25 * 2 ** min(delivery.count - 1, 10))

"""An actor that is hosted on its delivery: from its first fact, or take-over, until it rests or somebody else wrote."""

from __future__ import annotations

import asyncio
import logging
from math import inf

from noria.actor import endings, resting, sleeping
from noria.actor.activation import Activation
from noria.actor.drive import drive
from noria.actor.journal import Fenced
from noria.actor.load import known
from noria.actor.travel import travel
from noria.clock import now
from noria.contract.facts import HandedOver, Rested, Started
from noria.errors import NoriaError
from noria.limits import FIRST_RECORD_SECONDS, HAND_OVER_SECONDS, POISON_TAKEOVERS
from noria.machine.state import ENDED, RESTING
from noria.ports import Refused
from noria.workflow.context import AbortSignal

log = logging.getLogger("noria.actor")


def takes_over(activation: Activation) -> bool:
    """Whether somebody else may have hosted by this delivery."""
    return activation.delivery.count > 1 or activation.tree.root.status == "active"


async def host_to_rest(activation: Activation, fresh: bool, mine: bool) -> bool:
    """True when the actor rests and the delivery is acknowledged; False when somebody else wrote. `fresh`: a start that
    nobody began; `mine`: this worker hosted by the delivery before, and nobody wrote since."""
    tree, root, journal = activation.tree, activation.tree.root, activation.journal
    first_record, expiry, status = None, None, "active"
    journal.in_seen = max([s for s, path in tree.pending if path == activation.key.path] + [root.in_seen])
    await activation.host.take_slot(activation)
    if activation.lapsed:
        activation.host.free_slot(activation)
        return False
    tree.hosted = True
    if activation.host.observer is not None:
        activation.stretch = journal.watched_by(activation.host.observer.hosts(activation.delivery, tree.traceparent))
    try:
        travels = bool(tree.travels) and root.status != "active"
        if travels:
            await travel(activation)
        elif root.last == 0 and activation.key.path == "":
            journal.opening[""] = [Started(root.input, tree.resource_id, now())]
        expiry = endings.expiry(activation)
        if not travels and not fresh and takes_over(activation):
            activation.recovered = True
            if not mine:
                await journal.take_over()
        elif activation.key.path == "":
            first_record = asyncio.get_running_loop().call_later(FIRST_RECORD_SECONDS, activation.save_soon)
        activation.hosting = True
        if tree.takeovers > POISON_TAKEOVERS:
            await endings.give_up(activation)
        else:
            await _run(activation)
        await _rest(activation)
        status, activation.hosting = root.status, False
        return True
    except (Refused, Fenced):
        activation.hosting = False
        return False
    finally:
        for timer in (first_record, expiry):
            if timer is not None:
                timer.cancel()
        await activation.stop()
        if activation.stretch is not None:
            activation.stretch.end(status)
        activation.host.free_slot(activation)


async def _run(activation: Activation) -> None:
    """Drive the actor until a fact says why it rests."""
    tree, root = activation.tree, activation.tree.root
    activation.interrupted.clear()
    while True:
        if tree.cancel and root.status not in ENDED:
            status = "canceled"
            break
        activation.main = asyncio.create_task(drive(activation, root))
        status = await _supervise(activation, activation.main)
        if status != "again":
            break
    if root.status in ENDED:
        return
    if activation.overrun is not None and status not in RESTING - {"waiting"}:
        await endings.fail(activation, activation.overrun)
    elif status == "canceled":
        await endings.cancel(activation)
    elif status == "waiting" and _rests_already(activation):
        return  # others may have acknowledged the door: whoever holds the next command goes on
    elif root.status != status or root.in_seen < activation.journal.in_seen:
        await sleeping.rearm(activation)
        if status == "waiting":
            await endings.arm_expiry(activation, inf)
        await activation.record(root, [Rested(status, now())])


async def _supervise(activation: Activation, main: asyncio.Task[str]) -> str:
    """Wait for the drive; look at commands when woken. The status that it came to, or "again" when a command came
    that the drive may have passed already."""
    seen = activation.journal.in_seen
    main.add_done_callback(activation.signal)
    while True:
        if not main.done() and not activation.woken and not activation.child_rested:
            await activation.signalled(activation.host.lease / 3 if activation.watching else None)
        if main.done() and (not activation.woken or _outcome(main) in ENDED):
            return _came_to(activation, main, seen)
        only_children = activation.child_rested and not activation.woken
        activation.woken = activation.child_rested = False
        await _look(activation, only_children)
        if activation.tree.cancel and activation.tree.root.status not in ENDED:
            return "canceled"
        if activation.overrun is not None and not main.done():
            return "overrun"
        if main.done():
            return _came_to(activation, main, seen)


def _came_to(activation: Activation, main: asyncio.Task[str], seen: int) -> str:
    status = _outcome(main)
    if status == "waiting" and _rests_already(activation):
        return status
    return "again" if status in RESTING - ENDED and activation.journal.in_seen > seen else status


def _rests_already(activation: Activation) -> bool:
    """Whether this host recorded that the actor waits: its timer may have come meanwhile."""
    root = activation.tree.root
    return root.status == "waiting" and root.host == activation.nonce


def _outcome(main: asyncio.Task[str]) -> str:
    if main.cancelled():
        raise asyncio.CancelledError
    error = main.exception()
    if isinstance(error, AbortSignal):
        return "canceled"
    if error is not None:
        raise error
    return main.result()


async def _look(activation: Activation, only_children: bool) -> None:
    """Read what came: always from the subjects, never from news, which also tell of appends that were refused."""
    journal = activation.journal
    if activation.watching:
        await journal.catch_up()
    if not only_children:
        seen = journal.in_seen
        for entry in await activation.broker.commands.read(activation.key, seen, known(activation.tree, seen)):
            await journal.take_in(entry)
            journal.in_seen = entry.sequence  # a rest that covers one of several only leaves the next to wake the run
            if activation.stretch is not None:
                activation.stretch.took_in(entry.body)
    activation.prove()
    for hear in activation.after_look:
        hear()


async def _rest(activation: Activation) -> None:
    """Behind the resting fact: record, news, acknowledgement."""
    if activation.key.path == "":
        await resting.save(activation)
        resting.announce(activation)
    else:
        activation.host.tell_those_above(activation)
    activation.delivery.ack()
    # what else in hand the actor consumed: each would be looked at by a reading of the whole tree
    consumed = [d for d in activation.others if d.sequence <= activation.tree.root.in_seen]
    activation.others = [d for d in activation.others if d not in consumed]
    for delivery in consumed:
        delivery.ack()


async def hand_over(activation: Activation) -> None:
    """Once nothing runs here any more: give the deliveries back."""
    for delivery in [activation.delivery, *activation.others] if await say_that_it_leaves(activation) else activation.others:
        delivery.hand_back()


async def say_that_it_leaves(activation: Activation) -> bool:
    """Where a run is left half-way, so that its next take-over is no sign of a death; without an answer in time it counts as
    one. False: somebody else hosts by the door."""
    if activation.hosting and _is_half_way(activation):
        try:
            async with asyncio.timeout(HAND_OVER_SECONDS):
                await activation.journal.append(activation.tree.root, [HandedOver(now())])
        except (Refused, Fenced):
            return False
        except (NoriaError, TimeoutError) as error:
            log.debug("run %s is handed over without a word: %r", activation.key.run, error)
    return True


def _is_half_way(activation: Activation) -> bool:
    root = activation.tree.root
    return root.status not in RESTING or (root.status not in ENDED and root.in_seen < activation.journal.in_seen)

"""One delivery in hand: judged by the three rules, again with each news, until its actor is hosted to its rest, or the
delivery is acknowledged or left to another."""

from __future__ import annotations

from noria import runlog
from noria.actor import resting
from noria.actor.activation import Activation
from noria.actor.hosting import host_to_rest, takes_over
from noria.actor.journal import Journal
from noria.actor.load import bury, fold, is_newest, load
from noria.errors import GraphMismatch
from noria.limits import LAG_SECONDS, POISON_TAKEOVERS, SUSPECT_TAKEOVERS
from noria.machine.fit import misfit
from noria.machine.lease import judge
from noria.machine.state import RESTING, Tree
from noria.ports import Stored

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0  # seconds between two judgements of a delivery that waits


async def attend(activation: Activation) -> None:
    """Raises GraphMismatch or NewerFormat when this worker cannot host the run."""
    runlog.current.set(activation.key.tree)
    told = False  # the host, of this delivery
    pause, hosted_as, fresh = FIRST_PAUSE, None, activation.host.is_fresh(activation.delivery)
    newcomer = activation.delivery.sequence if activation.delivery.count == 1 else 0
    while True:
        fresh = await _load(activation, fresh, newcomer)
        newcomer = 0  # looked at again: by now somebody else may host by it
        match judge(activation.tree, activation.delivery.sequence, hosted_as):
            case "drop":
                return None
            case "ack":
                if await _is_confirmed(activation):
                    return await _acknowledge(activation)
                await activation.nap(LAG_SECONDS)
            case "host" if activation.lapsed:
                return None
            case "host":
                # nobody else wrote: nobody to take over from
                mine = hosted_as is not None and activation.tree.root.host == hosted_as
                if mine and hosted_as is not None:
                    activation.journal.nonce = hosted_as  # the same host goes on
                if not mine and _is_suspect(activation, fresh) and not activation.host.trial.enter(activation):
                    activation.host.sidestep(activation)
                    await activation.nap(activation.host.lease)
                    continue
                _check_fit(activation, fresh)
                await bury(activation.broker, activation.unreadable)
                activation.unreadable = ()
                if await host_to_rest(activation, fresh, mine):
                    return None
                hosted_as, fresh = activation.journal.nonce, False
            case "wait":
                if _swap(activation):
                    hosted_as = None
                    continue
                activation.host.trial.leave(activation)
                activation.host.sidestep(activation)
                if not told:
                    activation.broker.news.nudge(activation.key.tree, activation.journal.nonce)
                told = await activation.nap(pause)  # by others that wait too, perhaps: to nudge them back would never end
                pause = min(pause * 2, LONGEST_PAUSE)


async def _load(activation: Activation, fresh: bool, newcomer: int) -> bool:
    """Fold what is stored; all that there is to a fresh start is in the delivery. Whether it was one indeed."""
    activation.forget_news()
    broker, key, delivery, host = activation.broker, activation.key, activation.delivery, activation.host
    if fresh:
        activation.tree, activation.revision = Tree(key.path), 0 if key.path == "" else None
        delivered = Stored(delivery.sequence, "in", key, delivery.body, delivery.time)
        fresh = await fold(broker, activation.tree, delivered, host.listener) is None
    if not fresh:
        loaded = await load(broker, key, newcomer, host.listener)
        activation.tree, activation.recorded, activation.unreadable = loaded.tree, loaded.recorded, loaded.unreadable
        activation.revision = loaded.revision if key.path == "" else None
    activation.journal = Journal(broker, key, activation.tree, delivery.sequence, host.nonces, activation.tenure, host.listener)
    return fresh


async def _is_confirmed(activation: Activation) -> bool:
    """Whether a command that nobody consumed is without effect indeed, and not only by a read that lagged behind."""
    consumed = activation.delivery.sequence <= activation.tree.root.in_seen
    return consumed or await is_newest(activation.broker, activation.key, activation.tree)


async def _acknowledge(activation: Activation) -> None:
    root = activation.tree.root
    await bury(activation.broker, [bad for bad in activation.unreadable if bad.sequence == activation.delivery.sequence])
    if activation.revision is not None and root.last > activation.recorded and root.status in RESTING:
        await resting.save(activation)  # the former host may have died before it could
    activation.delivery.ack()


def _is_suspect(activation: Activation, fresh: bool) -> bool:
    """Whether this would be one more take-over of a run that was taken over before without progress."""
    tree = activation.tree
    again = not fresh and takes_over(activation) and not tree.cancel
    return again and SUSPECT_TAKEOVERS <= tree.takeovers + (not tree.handed) <= POISON_TAKEOVERS


def _check_fit(activation: Activation, fresh: bool) -> None:
    """Raises GraphMismatch when what the run recorded does not fit this worker's definition. To be canceled it need not."""
    tree, workflow = activation.tree, activation.workflow
    passes = fresh or tree.cancel or tree.travels  # a time travel keeps what fits
    reason = None if passes else misfit(tree, activation.places.unit(activation.key.path))
    if reason is not None:
        raise GraphMismatch(f"workflow {workflow.id!r}, version {workflow.version!r}, does not fit this run of version {tree.version!r}: {reason}")


def _swap(activation: Activation) -> bool:
    """This process may hold the very delivery that may host: a waiting one must not stand before it."""
    for n, other in enumerate(activation.others):
        if judge(activation.tree, other.sequence) != "wait":
            activation.others[n], activation.delivery = activation.delivery, other
            return True
    return False

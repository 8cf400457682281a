"""Model of a parent with one spread child (architecture.md, 1.4), on top of the rules for one actor.

The parent starts the child by a command, watches its facts by a lossy subscription and a re-read at each lease renewal,
rests when the child rests (behind a timer that addresses the root), passes the fired timer down by a second command, and
ends when the child ended. Three slots, crashes, leases that expire under a live host, lost notifications; dead hosts'
deliveries come back by the lease or are handed back sooner, which is the same here. Checked in every state: nothing is
recorded twice; in every state where nothing can move any more: the parent ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from tests.models.actor import put
from tests.models.explore import Found, explore

MUTATIONS = ("no-reread", "rest-early", "timer-to-child", "ack-early")
READY = -1
RESTING = ("waiting", "sleeping", "ended")


class Entry(NamedTuple):
    """A message of the stream: a command ("in") to an actor, or a fact ("log") of it."""

    kind: str
    actor: str
    name: str
    in_seen: int = -1
    door: int = -1


class Host(NamedTuple):
    """What the host of an actor knows."""

    actor: str
    door: int
    known: int  # how much of the stream it has folded: a prefix,
    own: tuple[int, ...] = ()  # and its own messages beyond it
    done: bool = False
    blind: bool = False  # has read everything it was told of, and missed a notification since


class World(NamedTuple):
    """Everything that can differ between two states."""

    stream: tuple[Entry, ...] = ()
    deliveries: tuple[tuple[int, int], ...] = ()  # (position of the command, slot or READY); absent: acknowledged
    hosts: tuple[Host | None, ...] = (None, None, None)  # with two, two hosts of the parent would starve the child
    timer: bool = False  # set and not fired
    crashes: int = 0
    expiries: int = 0


Entries: TypeAlias = list[tuple[int, Entry]]
Step: TypeAlias = tuple[str, str] | None  # ("fact" or "command", name), ("watch", ""); None: it rests


def names(entries: Entries, actor: str, kind: str = "log") -> list[str]:
    return [e.name for _, e in entries if e.kind == kind and e.actor == actor]


def rests(entries: Entries, actor: str) -> bool:
    done = names(entries, actor)
    return not done or done[-1] in RESTING


def unconsumed(entries: Entries, actor: str) -> list[int]:
    if "ended" in names(entries, actor):
        return []
    seen = max((e.in_seen for _, e in entries if e.kind == "log" and e.actor == actor), default=-1)
    return [p for p, e in entries if e.kind == "in" and e.actor == actor and p > seen]


def door_of(entries: Entries, actor: str) -> int:
    """The lease of an active actor's host; -1: it rests."""
    facts = [e for _, e in entries if e.kind == "log" and e.actor == actor]
    return -1 if rests(entries, actor) else facts[-1].door


def decide_child(entries: Entries) -> Step:
    mine, inbox = names(entries, "child"), names(entries, "child", "in")
    if "started" not in mine:
        return ("fact", "started")
    if "wake" not in inbox and "timer" not in inbox:
        return None if mine[-1] == "sleeping" else ("fact", "sleeping")
    if "woke" not in mine:
        return ("fact", "woke")
    return ("fact", "ended") if "ended" not in mine else None


def ack(world: World, door: int) -> World:
    return world._replace(deliveries=tuple(d for d in world.deliveries if d[0] != door))


def send(world: World, actor: str, name: str) -> World:
    return world._replace(
        stream=(*world.stream, Entry("in", actor, name)), deliveries=(*world.deliveries, (len(world.stream), READY))
    )


@dataclass(frozen=True)
class Model:
    """The protocol, with one rule left out when `mutation` names it."""

    mutation: str = ""
    crashes: int = 1
    expiries: int = 1

    def explore(self) -> Found:
        return explore(World(), self.moves, self.check)

    def decide_parent(self, entries: Entries) -> Step:
        mine, inbox, sent = names(entries, "parent"), names(entries, "parent", "in"), names(entries, "child", "in")
        if "started" not in mine:
            return ("fact", "started")
        if "go" not in sent:
            return ("command", "go")
        if "ended" in names(entries, "child"):
            return ("fact", "ended") if "ended" not in mine else None
        if "timer" in inbox and "wake" not in sent:
            return ("command", "wake")
        child_is_active = bool(unconsumed(entries, "child")) or not rests(entries, "child")
        if child_is_active and self.mutation != "rest-early":
            return ("watch", "")
        if rests(entries, "parent") and not unconsumed(entries, "parent"):
            return None
        return ("fact", "waiting")

    def moves(self, world: World) -> Iterator[World]:
        if not world.stream:
            yield send(world, "parent", "start")
        if world.timer:
            yield send(world, "child" if self.mutation == "timer-to-child" else "parent", "timer")._replace(timer=False)
        for number in range(len(world.deliveries)):
            yield from self._delivery(world, number)
        for slot, host in enumerate(world.hosts):
            if host is not None:
                yield from self._host(world, slot, host)

    def _delivery(self, world: World, number: int) -> Iterator[World]:
        door, where = world.deliveries[number]
        if where == READY:
            for slot, host in enumerate(world.hosts):
                if host is None:
                    yield from self._judge(world, number, slot)
        elif (holder := world.hosts[where]) is None or holder.door != door:
            yield world._replace(deliveries=put(world.deliveries, number, (door, READY)))
        elif world.expiries < self.expiries:
            yield world._replace(expiries=world.expiries + 1, deliveries=put(world.deliveries, number, (door, READY)))

    @staticmethod
    def _judge(world: World, number: int, slot: int) -> Iterator[World]:
        door, everything = world.deliveries[number][0], list(enumerate(world.stream))
        actor = world.stream[door].actor
        pending, held = unconsumed(everything, actor), door_of(everything, actor)
        if door == held if held >= 0 else door == next(iter(pending), None):
            host = Host(actor, door, len(world.stream))
            yield world._replace(deliveries=put(world.deliveries, number, (door, slot)), hosts=put(world.hosts, slot, host))
        elif door not in pending and door != held:
            yield ack(world, door)

    def _host(self, world: World, slot: int, host: Host) -> Iterator[World]:
        if world.crashes < self.crashes:
            freed = tuple((d, READY) if w == slot else (d, w) for d, w in world.deliveries)
            yield world._replace(crashes=world.crashes + 1, hosts=put(world.hosts, slot, None), deliveries=freed)
        if host.done:
            yield ack(world, host.door)._replace(hosts=put(world.hosts, slot, None))
            return
        entries = [(p, e) for p, e in enumerate(world.stream) if p < host.known or p in host.own]
        step = decide_child(entries) if host.actor == "child" else self.decide_parent(entries)
        match step:
            case None:
                yield world._replace(hosts=put(world.hosts, slot, host._replace(done=True)))
            case ("watch", _):
                yield from self._watch(world, slot, host)
            case ("command", name):  # exact compare-and-set on the child's commands
                if len(names(list(enumerate(world.stream)), "child", "in")) != len(names(entries, "child", "in")):
                    yield world._replace(hosts=put(world.hosts, slot, host._replace(known=len(world.stream))))
                else:
                    following = host._replace(own=(*host.own, len(world.stream)))
                    yield send(world, "child", name)._replace(hosts=put(world.hosts, slot, following))
            case (_, name):
                yield self._append(world, slot, host, entries, name)

    def _watch(self, world: World, slot: int, host: Host) -> Iterator[World]:
        if len(world.stream) == host.known:
            return
        if not host.blind:  # a notification arrives, or is lost
            yield world._replace(hosts=put(world.hosts, slot, host._replace(known=len(world.stream))))
            yield world._replace(hosts=put(world.hosts, slot, host._replace(blind=True)))
        elif self.mutation != "no-reread":  # the re-read at the next lease renewal
            yield world._replace(hosts=put(world.hosts, slot, host._replace(known=len(world.stream), blind=False)))

    def _append(self, world: World, slot: int, host: Host, entries: Entries, fact: str) -> World:
        if len(names(list(enumerate(world.stream)), host.actor)) != len(names(entries, host.actor)):
            return world._replace(hosts=put(world.hosts, slot, None))  # fenced
        seen = max((p for p, e in entries if e.kind == "in" and e.actor == host.actor), default=-1)
        following = host._replace(own=(*host.own, len(world.stream)), done=fact in RESTING)
        grown = world._replace(
            stream=(*world.stream, Entry("log", host.actor, fact, seen, host.door)),
            timer=world.timer or fact == "sleeping",  # set before the resting fact; setting it twice replaces it
            hosts=put(world.hosts, slot, following),
        )
        return ack(grown, host.door) if self.mutation == "ack-early" else grown

    @staticmethod
    def check(world: World, final: bool) -> None:
        everything = list(enumerate(world.stream))
        for actor in ("parent", "child"):
            done = [n for n in names(everything, actor) if n != "waiting"]
            assert len(set(done)) == len(done), f"{actor} recorded twice: {done}"
        assert not final or names(everything, "parent")[-1:] == ["ended"], f"stuck: {world}"

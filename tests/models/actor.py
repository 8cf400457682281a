"""Model of one actor: the command-and-log protocol of architecture.md, 1.1 and 1.2, and the recovery of dead hosts.

One actor: start, step (r1), rest: suspended; resume, step (r2), end: success; a cancel may come at any time. Two workers,
a starting client, two rival resuming clients, a cancelling client, crashes, leases that expire under a live host (a
zombie), and a rescuer: it notes which deliveries nobody who lives holds, and hands them back later, when that may be
true no longer. Checked in every state: no fact is recorded twice; in every state where nothing can move any more: no
command is lost, no run is stuck.

A host looks for commands when it is woken, and not before a resting fact (docs/decisions/0001). A delivery that comes
back to the worker which hosts by it is its lease again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from tests.models.explore import Found, explore

MUTATIONS = (
    "no-cas", "no-command-cas", "ack-unconsumed", "ack-early", "host-any", "cancel-early", "recover-acks", "recover-only",
)  # fmt: skip
READY, DEAD = -1, -2  # where a delivery is, when no worker's host holds it
RESTING = {"suspended": "suspended", "success": "success", "canceled": "canceled"}


class Entry(NamedTuple):
    """A message of the stream: a command ("in") or a fact ("log")."""

    kind: str
    name: str
    in_seen: int = -1  # position of the last command its host had folded
    door: int = -1  # position of the command whose delivery is the host's lease


class Host(NamedTuple):
    """What a worker knows of the actor that it hosts."""

    door: int  # the delivery it holds
    known: int  # how much of the stream it has folded: a prefix,
    own: tuple[int, ...] = ()  # and these beyond it: its own appends, and commands it looked for
    resting: bool = False


class World(NamedTuple):
    """Everything that can differ between two states."""

    stream: tuple[Entry, ...] = ()
    deliveries: tuple[tuple[int, int], ...] = ()  # (position of the command, worker or READY or DEAD); absent: acknowledged
    hosts: tuple[Host | None, ...] = (None, None)
    clients: tuple[tuple[str, str], ...] = ()  # what each wants, and how far it is
    crashes: int = 0
    expiries: int = 0
    rescues: int = 0
    noted: tuple[int, ...] = ()  # what the rescuer means to hand back
    acked_commands: tuple[str, ...] = ()  # acknowledged to a client
    promised: bool = False  # a cancel was reported as true at once


class State(NamedTuple):
    """What a log means."""

    facts: tuple[str, ...]
    status: str  # none, active, suspended, success, canceled
    door: int
    in_seen: int
    unconsumed: tuple[int, ...]  # effective commands not consumed yet, oldest first


Entries = list[tuple[int, Entry]]


def fold(entries: Entries) -> State:
    """Pure; every party computes the same."""
    facts, status, door, seen, pending = list[str](), "none", -1, -1, list[tuple[int, str]]()
    for position, entry in entries:
        if entry.kind == "in":
            pending.append((position, entry.name))
        else:
            facts.append(entry.name)
            door, seen, status = entry.door, entry.in_seen, RESTING.get(entry.name, "active")

    def effective(name: str) -> bool:
        if status in ("success", "canceled"):
            return False
        if name == "start":
            return status == "none"
        return name == "cancel" or (status == "suspended" and "r2" not in facts)

    return State(tuple(facts), status, door, seen, tuple(p for p, n in pending if p > seen and effective(n)))


def decide(entries: Entries) -> str | None:
    """The next fact of the host, given what it knows; None: it rests."""
    facts, names = fold(entries).facts, [e.name for _, e in entries if e.kind == "in"]
    if "cancel" in names:
        return "canceled"
    if "started" not in facts:
        return "started"
    if "r1" not in facts:
        return "r1"
    if "resume" not in names:
        return "suspended" if facts[-1] != "suspended" else None
    return "r2" if "r2" not in facts else "success"


def put(items: tuple, index: int, value: object) -> tuple:
    return (*items[:index], value, *items[index + 1 :])


def ack(world: World, door: int) -> World:
    return world._replace(deliveries=tuple(d for d in world.deliveries if d[0] != door))


def commands(entries: Iterable[tuple[int, Entry]]) -> list[int]:
    return [p for p, e in entries if e.kind == "in"]


@dataclass(frozen=True)
class Model:
    """The protocol, with one rule left out when `mutation` names it."""

    mutation: str = ""
    crashes: int = 2
    expiries: int = 2
    rescues: int = 1
    clients: tuple[str, ...] = ("start", "resume", "resume", "cancel")
    alone: ClassVar[bool] = True  # without an expired lease there is one host at most

    def explore(self) -> Found:
        return explore(World(clients=tuple((c, "init") for c in self.clients)), self.moves, self.check)

    def moves(self, world: World) -> Iterator[World]:
        yield from self._clients(world)
        for number in range(len(world.deliveries)):
            yield from self._delivery(world, number)
        yield from self._rescuer(world)
        for worker, host in enumerate(world.hosts):
            if host is not None:
                yield from self._host(world, worker, host)

    def _clients(self, world: World) -> Iterator[World]:
        state, sent = fold(list(enumerate(world.stream))), len(commands(enumerate(world.stream)))
        for number, (kind, phase) in enumerate(world.clients):
            if phase == "init":  # reads the log, validates, remembers what it saw
                valid = {
                    "start": not world.stream,
                    "resume": state.status == "suspended" and not state.unconsumed,
                    "cancel": bool(world.stream) and state.status not in ("success", "canceled"),
                }
                if valid[kind]:
                    yield world._replace(clients=put(world.clients, number, (kind, f"read:{sent}")))
            elif phase.startswith("read:"):
                if kind != "cancel" and self.mutation != "no-command-cas" and sent != int(phase[5:]):
                    yield world._replace(clients=put(world.clients, number, (kind, "refused")))
                    continue
                alone = self.mutation == "cancel-early" or not state.unconsumed
                yield world._replace(
                    stream=(*world.stream, Entry("in", kind)), deliveries=(*world.deliveries, (len(world.stream), READY)),
                    promised=world.promised or (kind == "cancel" and state.status == "suspended" and alone),
                    clients=put(world.clients, number, (kind, "done")), acked_commands=(*world.acked_commands, kind),
                )  # fmt: skip

    def _delivery(self, world: World, number: int) -> Iterator[World]:
        door, where = world.deliveries[number]
        if where == READY:
            for worker, host in enumerate(world.hosts):
                if host is None:
                    yield from self._judge(world, number, worker)
                elif host.door == door:  # the own lease came back: it goes on under the new delivery
                    yield world._replace(deliveries=put(world.deliveries, number, (door, worker)))
        elif where == DEAD or (host := world.hosts[where]) is None or host.door != door:
            if self.mutation != "recover-only":  # nobody renews it: it expires, always
                yield world._replace(deliveries=put(world.deliveries, number, (door, READY)))
        elif world.expiries < self.expiries:  # it expires under a live host, which thereby becomes a zombie
            yield world._replace(expiries=world.expiries + 1, deliveries=put(world.deliveries, number, (door, READY)))

    def _judge(self, world: World, number: int, worker: int) -> Iterator[World]:
        """The three rules (machine/lease.py)."""
        door, state = world.deliveries[number][0], fold(list(enumerate(world.stream)))
        active, oldest = state.status == "active", next(iter(state.unconsumed), None)
        any_may = self.mutation == "host-any" and oldest is not None
        if door == state.door if active else (door == oldest or any_may):
            host = Host(door, len(world.stream))
            yield world._replace(deliveries=put(world.deliveries, number, (door, worker)), hosts=put(world.hosts, worker, host))
        elif (door not in state.unconsumed and not (active and door == state.door)) or self.mutation == "ack-unconsumed":
            yield ack(world, door)  # consumed or without effect
        # else it is kept in hand and judged again

    def _rescuer(self, world: World) -> Iterator[World]:
        """Notes what no live host holds, and hands it back afterwards, whoever holds it by then."""
        if world.noted:
            door, rest = world.noted[0], world.noted[1:]
            if self.mutation == "recover-acks":
                yield ack(world, door)._replace(noted=rest)
            else:  # of an acknowledged delivery it does nothing
                back = tuple((d, READY) if d == door else (d, w) for d, w in world.deliveries)
                yield world._replace(noted=rest, deliveries=back)
        elif world.rescues < self.rescues:
            lost = tuple(d for d, w in world.deliveries if w < 0)
            if lost:
                yield world._replace(rescues=world.rescues + 1, noted=lost)

    def _host(self, world: World, worker: int, host: Host) -> Iterator[World]:
        if world.crashes < self.crashes:
            dropped = tuple((d, DEAD) if w == worker else (d, w) for d, w in world.deliveries)
            yield world._replace(crashes=world.crashes + 1, hosts=put(world.hosts, worker, None), deliveries=dropped)
        if host.resting:  # after the resting fact: acknowledge the lease, leave
            yield ack(world, host.door)._replace(hosts=put(world.hosts, worker, None))
            return
        entries = [(p, e) for p, e in enumerate(world.stream) if p < host.known or p in host.own]
        unseen = tuple(p for p in commands(enumerate(world.stream)) if p >= host.known and p not in host.own)
        if unseen:  # woken: it reads its commands
            yield world._replace(hosts=put(world.hosts, worker, host._replace(own=(*host.own, *unseen))))
        fact = decide(entries)
        if fact is None:
            yield world._replace(hosts=put(world.hosts, worker, host._replace(resting=True)))
            return
        if self.mutation != "no-cas" and self._facts(enumerate(world.stream)) != self._facts(entries):
            yield world._replace(hosts=put(world.hosts, worker, None))  # fenced: drop the activation, acknowledge nothing
            return
        entry = Entry("log", fact, max([*commands(entries), fold(entries).in_seen]), host.door)
        following = host._replace(own=(*host.own, len(world.stream)), resting=fact in RESTING)
        grown = world._replace(stream=(*world.stream, entry), hosts=put(world.hosts, worker, following))
        yield ack(grown, host.door) if self.mutation == "ack-early" else grown

    @staticmethod
    def _facts(entries: Iterable[tuple[int, Entry]]) -> int:
        return sum(e.kind == "log" for _, e in entries)

    def check(self, world: World, final: bool) -> None:
        facts = [e.name for e in world.stream if e.kind == "log"]
        assert len(set(facts)) == len(facts), f"recorded twice: {facts}"
        sent = [e.name for e in world.stream if e.kind == "in"]
        assert sent.count("resume") <= 1 and sent.count("start") <= 1, f"two rivals won: {sent}"
        if self.alone and world.expiries == world.rescues == 0:
            working = [h for h in world.hosts if h is not None and not h.resting]
            assert len(working) <= 1, f"two hosts though no lease expired: {world}"
        if final:
            state = fold(list(enumerate(world.stream)))
            assert not world.stream or state.status in RESTING.values(), f"stuck {state}: {world}"
            assert not state.unconsumed, f"command lost {state}: {world}"
            assert not world.promised or state.status == "canceled", f"promised canceled, ended {state.status}: {world}"
            assert "cancel" not in world.acked_commands or state.status in ("canceled", "success"), f"cancel lost: {world}"

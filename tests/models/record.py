"""Model of a run's record and of a log that ages (architecture.md, 1.5).

One actor: start, r1, rest: suspended; resume, r2, end: success. Facts and commands vanish from the front of the stream; what a
record holds stays. Two workers, crashes, leases that expire under a host which may come back when the whole log has gone, and
a client that starts the run a second time. Mirrors `load` (actor/load.py), `save` (actor/resting.py), `Journal.append` and
`_refused` (actor/journal.py), `judge` (machine/lease.py) and the acknowledgement (actor/attending.py).

Time is left out but for this: a fact ages out unrecorded only when nobody is about to record it. Whoever has a delivery in
hand is: a resting run is recorded before the acknowledgement, one that is active for long each hour. One limit is not
explored: without any worker for as long as facts are kept, those behind the record are gone.

Checked in every state: record and tail together are the run, no fact is recorded twice, a record holds stored facts only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.models.actor import Entries, Entry, put
from tests.models.explore import Found, explore

MUTATIONS = ("ack-unrecorded", "ack-consumed-unrecorded", "record-no-cas", "record-by-force", "record-first", "no-zero", "zero-blindly",
             "trust-empty", "start-anew", "never-while-active")  # fmt: skip
RESTING = ("suspended", "success")
READY = -1


class Host(NamedTuple):
    """What an activation knows; `saving`: it rests, and puts its record before it acknowledges."""

    door: int
    known: tuple[int, ...]  # positions of the stream
    revision: int  # of the record that it read or put
    saving: bool = False
    late: bool = False  # its lease ran out; it may have come back


class World(NamedTuple):
    """Everything that can differ between two states. `stream` is all that was ever stored."""

    stream: tuple[Entry, ...] = ()
    gone: frozenset[int] = frozenset()
    record: tuple[int, ...] = ()  # the positions that it sums up
    revision: int = 0
    deliveries: tuple[tuple[int, int], ...] = ()
    hosts: tuple[Host | None, ...] = (None, None)
    starts: int = 0
    resumes: int = 0
    crashes: int = 0
    expiries: int = 0
    saves: int = 0  # while active
    wrong: str = ""


class State(NamedTuple):
    """What record and tail mean."""

    facts: tuple[str, ...]
    status: str
    door: int
    in_seen: int
    last: int
    pending: tuple[int, ...]


def fold(entries: Entries) -> State:
    facts = [(p, e) for p, e in entries if e.kind == "log"]
    last = facts[-1] if facts else (-1, Entry("log", "none"))
    status = last[1].name if last[1].name in (*RESTING, "none") else "active"
    pending = tuple(p for p, e in entries if e.kind == "in" and p > last[1].in_seen)
    return State(tuple(e.name for _, e in facts), status, last[1].door, last[1].in_seen, last[0], pending)


def known(world: World, positions: tuple[int, ...]) -> Entries:
    return [(p, world.stream[p]) for p in positions]


def load(world: World) -> tuple[int, ...]:
    """Record and tail."""
    return tuple(p for p in range(len(world.stream)) if p in world.record or p not in world.gone)


def decide(state: State, entries: Entries) -> str | None:
    """The next fact; a command without effect is consumed by the same rest once more."""
    if "r1" not in state.facts:
        return "r1"
    if not any(e.name == "resume" for _, e in entries):
        return "suspended" if state.status == "active" or state.pending else None
    if "r2" not in state.facts:
        return "r2"
    return "success" if state.status != "success" else None


@dataclass(frozen=True)
class Model:
    """The protocol, with one rule left out when `mutation` names it."""

    mutation: str = ""
    crashes: int = 1
    expiries: int = 1
    starts: int = 2
    saves: int = 1

    def explore(self) -> Found:
        return explore(World(), self.moves, self.check)

    def moves(self, world: World) -> Iterator[World]:
        yield from self._clients(world)
        yield from self._age(world)
        for number in range(len(world.deliveries)):
            yield from self._delivery(world, number)
        for worker, host in enumerate(world.hosts):
            if host is not None:
                yield from self._host(world, worker, host)

    def _clients(self, world: World) -> Iterator[World]:
        commands = [p for p, e in enumerate(world.stream) if e.kind == "in" and p not in world.gone]
        if world.starts < self.starts and not commands:  # expects none on its subject; a record refuses the caller only
            yield self._send(world, "start")._replace(starts=world.starts + 1)
        state = fold(known(world, load(world)))
        if not world.resumes and state.status == "suspended" and not state.pending:
            yield self._send(world, "resume")._replace(resumes=1)

    @staticmethod
    def _send(world: World, name: str) -> World:
        position = len(world.stream)
        return world._replace(stream=(*world.stream, Entry("in", name)), deliveries=(*world.deliveries, (position, READY)))

    def _age(self, world: World) -> Iterator[World]:
        """The oldest fact vanishes, or the oldest command; commands live longer than facts."""
        facts = [p for p, e in enumerate(world.stream) if e.kind == "log" and p not in world.gone]
        commands = [p for p, e in enumerate(world.stream) if e.kind == "in" and p not in world.gone]
        active = fold(list(enumerate(world.stream))).status == "active"
        owed = bool(world.deliveries) and not (self.mutation == "never-while-active" and active)
        punctual = [h for h in world.hosts if h is not None and not h.late]
        if any(fold(known(world, h.known)).last < 0 for h in punctual):  # who takes over says so at once, which is not modelled
            return
        if facts and (facts[0] in world.record or not owed):
            yield world._replace(gone=world.gone | {facts[0]})
        if commands and not any(p < commands[0] for p in facts) and not world.deliveries:
            yield world._replace(gone=world.gone | {commands[0]})

    def _delivery(self, world: World, number: int) -> Iterator[World]:
        door, where = world.deliveries[number]
        if where == READY:
            for worker, host in enumerate(world.hosts):
                if host is None:
                    yield from self._judge(world, number, worker)
                elif host.door == door:
                    yield world._replace(deliveries=put(world.deliveries, number, (door, worker)))
        elif (host := world.hosts[where]) is None or host.door != door:
            yield world._replace(deliveries=put(world.deliveries, number, (door, READY)))
        elif world.expiries < self.expiries:
            late = put(world.hosts, where, host._replace(late=True))
            yield world._replace(expiries=world.expiries + 1, deliveries=put(world.deliveries, number, (door, READY)), hosts=late)

    def _judge(self, world: World, number: int, worker: int) -> Iterator[World]:
        door, found = world.deliveries[number][0], load(world)
        state = fold(known(world, found))
        hosts = door == state.door if state.status == "active" else state.status != "success" and door == next(iter(state.pending), None)
        host = Host(door, found, world.revision)
        held = world._replace(deliveries=put(world.deliveries, number, (door, worker)))
        if hosts:
            yield held._replace(hosts=put(world.hosts, worker, host))
        elif door not in state.pending or state.status == "success":
            recorded = fold(known(world, world.record)).last
            if state.status in RESTING and recorded < state.last and self.mutation != "ack-consumed-unrecorded":
                yield held._replace(hosts=put(world.hosts, worker, host._replace(saving=True)))  # the former host died before it could
            else:
                yield self._ack(world, door)

    @staticmethod
    def _ack(world: World, door: int) -> World:
        return world._replace(deliveries=tuple(d for d in world.deliveries if d[0] != door))

    def _host(self, world: World, worker: int, host: Host) -> Iterator[World]:
        gone = world._replace(hosts=put(world.hosts, worker, None))
        if world.crashes < self.crashes:
            yield gone._replace(crashes=world.crashes + 1)
        if host.saving:
            saved = world if self.mutation == "ack-unrecorded" else self._save(world, host, False)[0]
            yield saved._replace(hosts=gone.hosts)
            yield self._ack(saved, host.door)._replace(hosts=gone.hosts)
            return
        if world.saves < self.saves and self.mutation != "never-while-active":
            saved, revision = self._save(world, host, True)
            yield saved._replace(saves=world.saves + 1, hosts=put(world.hosts, worker, host._replace(revision=revision)))
        entries = known(world, host.known)
        state = fold(entries)
        if self.mutation == "start-anew" and entries[-1][1].name == "start":
            state = state._replace(facts=())
        fact = decide(state, entries)
        if fact is None:
            yield world._replace(hosts=put(world.hosts, worker, host._replace(saving=True)))
        else:
            yield self._append(world, worker, host, entries, fact)

    def _append(self, world: World, worker: int, host: Host, entries: Entries, fact: str) -> World:
        """A compare-and-set on what the subject still holds: nothing, when it aged out."""
        dropped = world._replace(hosts=put(world.hosts, worker, None))
        if self.mutation == "record-first" and fact in RESTING and len(world.stream) not in world.record:
            return world._replace(record=(*host.known, len(world.stream)), revision=world.revision + 1)
        expected = fold(entries).last
        stored = max((p for p, e in enumerate(world.stream) if e.kind == "log" and p not in world.gone), default=-1)
        if stored != expected or (expected < 0 and host.late and self.mutation != "trust-empty"):
            newest = fold(known(world, load(world))).last
            if stored >= 0 or self.mutation == "no-zero" or (newest > expected and self.mutation != "zero-blindly"):
                refused = "" if newest > expected else f"refused though nobody else wrote: {fact}"
                return dropped._replace(wrong=world.wrong or refused)
        position, seen = len(world.stream), max(p for p, e in entries if e.kind == "in")
        following = host._replace(known=(*host.known, position), saving=fact in RESTING)
        return world._replace(stream=(*world.stream, Entry("log", fact, seen, host.door)), hosts=put(world.hosts, worker, following))

    def _save(self, world: World, host: Host, active: bool) -> tuple[World, int]:
        """The world with the record, and the revision that the host knows then."""
        done = world._replace(record=host.known, revision=world.revision + 1)
        if host.revision == world.revision or self.mutation == "record-no-cas":
            return done, done.revision
        newest, mine = fold(known(world, load(world))).last, fold(known(world, host.known)).last
        if newest > mine and self.mutation != "record-by-force":
            return world, host.revision
        return (world, world.revision) if active else (done, done.revision)

    @staticmethod
    def check(world: World, final: bool) -> None:
        assert not world.wrong, f"{world.wrong}: {world}"
        assert all(p < len(world.stream) for p in world.record), f"the record holds what is not stored: {world}"
        truth, read = fold(list(enumerate(world.stream))), fold(known(world, load(world)))
        assert truth.facts == read.facts and truth[1:5] == read[1:5], f"lost {truth} {read}: {world}"
        once = [f for f in truth.facts if f != "suspended"]
        assert len(set(once)) == len(once), f"recorded twice: {world}"
        if final and world.resumes:
            assert truth.status == "success", f"stuck {truth}: {world}"

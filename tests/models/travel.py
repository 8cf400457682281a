"""Model of an ended run that a time travel wakes: `tests.models.actor` with other commands and facts.

Start, r1, end; a time travel begins the next life by one fact, `rewound`, then r1 and the end again. Rival travellers, cancels
before and after, crashes around each append, zombies of the former life. Mirrors `judge` for ended runs (machine/lease.py),
`travel` (actor/travel.py), `rewind` and the `travels` of `fold_message` (machine/lives.py, fold.py) and `Journey._send`
(client/travel.py). The names of facts tell their life.

Checked: nothing is recorded twice; each travel that was acknowledged is made once; a cancel ends the life that it was sent to
or a later one, never one that began after it by a travel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.models import actor
from tests.models.actor import READY, Entries, Entry, Host, World, ack, commands, put

MUTATIONS = ("no-cas", "no-command-cas", "ack-ended", "host-later", "cancel-stays", "travel-again", "ack-early")
ENDED = ("success", "canceled")


class State(NamedTuple):
    """What a log means; positions are of the stream, -1: none."""

    facts: tuple[str, ...]
    status: str  # none, active, success, canceled
    life: int
    began: int  # the travel that began this life
    door: int
    in_seen: int
    travels: tuple[int, ...]  # not made yet
    cancel: int  # the last one that counts

    @property
    def over(self) -> bool:
        return self.status in ENDED and not self.travels


@dataclass(frozen=True)
class Model(actor.Model):
    """The protocol, with one rule left out when `mutation` names it."""

    clients: tuple[str, ...] = ("start", "travel", "travel", "cancel")

    def fold(self, entries: Entries) -> State:
        facts, began, last = list[str](), -1, Entry("log", "none")
        for _, entry in entries:
            if entry.kind != "log":
                continue
            facts.append(entry.name)
            last = entry
            if entry.name.startswith("rewound"):
                began = max(p for p, e in entries if e.name == "travel" and p <= entry.in_seen)
        name, life = last.name.partition("@")[0], 1 + sum(f.startswith("rewound") for f in facts)
        covered = -1 if self.mutation == "travel-again" else last.in_seen
        travels = tuple(p for p, e in entries if e.name == "travel" and p > covered)
        cancel = max((p for p, e in entries if e.name == "cancel"), default=-1)
        counts = cancel if cancel > began or self.mutation == "cancel-stays" else -1
        status = name if name in (*ENDED, "none") else "active"
        return State(tuple(facts), status, life, began, last.door, last.in_seen, travels, counts)

    def decide(self, state: State) -> str | None:
        """The next fact of the host."""
        if state.travels and state.status in ENDED:
            return f"rewound@{state.life + 1}"
        if state.status in ENDED:
            return None
        if state.cancel >= 0:
            return f"canceled@{state.life}"
        return f"success@{state.life}" if f"r1@{state.life}" in state.facts else f"r1@{state.life}"

    def _clients(self, world: World) -> Iterator[World]:
        state, sent = self.fold(list(enumerate(world.stream))), len(commands(enumerate(world.stream)))
        valid = {"start": not world.stream, "travel": state.over, "cancel": bool(world.stream) and not state.over}
        for number, (kind, phase) in enumerate(world.clients):
            if phase == "init" and valid[kind]:
                yield world._replace(clients=put(world.clients, number, (kind, f"read:{sent}")))
            elif phase.startswith("read:"):
                if kind != "cancel" and self.mutation != "no-command-cas" and sent != int(phase[5:]):
                    yield world._replace(clients=put(world.clients, number, (kind, "init")))  # it reads again
                    continue
                yield world._replace(
                    stream=(*world.stream, Entry("in", kind)), deliveries=(*world.deliveries, (len(world.stream), READY)),
                    clients=put(world.clients, number, (kind, "done")),
                )  # fmt: skip

    def _verdict(self, state: State, entries: Entries, sequence: int) -> str:
        """machine/lease.py."""
        if state.over or (state.status in ENDED and self.mutation == "ack-ended"):
            return "ack"
        if state.status in ENDED:
            first = min(state.travels)
            later = "host" if self.mutation == "host-later" else "wait"
            return "host" if sequence == first else "ack" if sequence < first else later
        if state.status == "none":
            return "host" if sequence == commands(entries)[0] else "wait"
        return "host" if sequence == state.door else "ack" if sequence <= state.in_seen else "wait"

    def _judge(self, world: World, number: int, worker: int) -> Iterator[World]:
        door, entries = world.deliveries[number][0], list(enumerate(world.stream))
        verdict = self._verdict(self.fold(entries), entries, door)
        if verdict == "host":
            host = Host(door, len(world.stream))
            yield world._replace(deliveries=put(world.deliveries, number, (door, worker)), hosts=put(world.hosts, worker, host))
        elif verdict == "ack":
            yield ack(world, door)

    def _host(self, world: World, worker: int, host: Host) -> Iterator[World]:
        if world.crashes < self.crashes:
            dropped = tuple((d, actor.DEAD) if w == worker else (d, w) for d, w in world.deliveries)
            yield world._replace(crashes=world.crashes + 1, hosts=put(world.hosts, worker, None), deliveries=dropped)
        if host.resting:
            yield ack(world, host.door)._replace(hosts=put(world.hosts, worker, None))
            return
        entries = [(p, e) for p, e in enumerate(world.stream) if p < host.known or p in host.own]
        unseen = tuple(p for p in commands(enumerate(world.stream)) if p >= host.known and p not in host.own)
        if unseen:  # woken: it reads its commands
            yield world._replace(hosts=put(world.hosts, worker, host._replace(own=(*host.own, *unseen))))
        state = self.fold(entries)
        fact = self.decide(state)
        if fact is None:
            yield world._replace(hosts=put(world.hosts, worker, host._replace(resting=True)))
            return
        if self.mutation != "no-cas" and self._facts(enumerate(world.stream)) != self._facts(entries):
            yield world._replace(hosts=put(world.hosts, worker, None))
            return
        entry = Entry("log", fact, max([*commands(entries), state.in_seen]), host.door)
        following = host._replace(own=(*host.own, len(world.stream)), resting=fact.partition("@")[0] in ENDED)
        grown = world._replace(stream=(*world.stream, entry), hosts=put(world.hosts, worker, following))
        yield ack(grown, host.door) if self.mutation == "ack-early" else grown

    def check(self, world: World, final: bool) -> None:
        entries = list(enumerate(world.stream))
        state, names = self.fold(entries), [e.name for e in world.stream if e.kind == "log"]
        assert len(set(names)) == len(names), f"recorded twice: {names}"
        travels = sum(e.name == "travel" for e in world.stream)
        assert state.life <= 1 + travels, f"travelled without being asked: {world}"
        if world.expiries == world.rescues == 0:
            working = [h for h in world.hosts if h is not None and not h.resting]
            assert len(working) <= 1, f"two hosts though no lease expired: {world}"
        for position, entry in entries:
            if entry.name.startswith("canceled"):
                began = self.fold(entries[:position]).began
                assert any(p > began for p, e in entries[:position] if e.name == "cancel"), f"canceled by a former life's: {world}"
        if final:
            assert not world.stream or state.status in ENDED, f"stuck {state}: {world}"
            assert state.life == 1 + travels, f"a travel was lost: {world}"

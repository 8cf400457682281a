"""Model of one actor whose reads are answered by replicas that lag: `tests.models.actor` with other readings.

Each reading of facts and each of commands gives what some replica has, which may lack the newest messages, the one more than
the other. Appends are compared by the leader. Mirrors `load` and `is_newest` (actor/load.py), the confirmation of an
acknowledgement (actor/attending.py) and that of a client's refusal (`load_newest`).

Checked beside what `actor` checks: no client is refused what the leader would have granted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from tests.models import actor
from tests.models.actor import Entries, Entry, Host, State, World, ack, commands, fold, put

MUTATIONS = ("no-cas", "ack-unconfirmed", "host-by-half", "refuse-unconfirmed", "no-command-cas")


@dataclass(frozen=True)
class Model(actor.Model):
    """`lag`: by how many messages a replica may be behind."""

    lag: int = 2
    alone: ClassVar[bool] = False  # who reads an old state may host for a moment: its first append is refused

    def readings(self, world: World) -> Iterator[Entries]:
        """What a loading may find."""
        end = len(world.stream)
        prefixes = range(max(0, end - self.lag), end + 1)
        found = {
            tuple((p, e) for p, e in enumerate(world.stream) if p < (facts if e.kind == "log" else sent)) for facts in prefixes for sent in prefixes
        }
        for entries in found:
            if self.mutation == "host-by-half" or fold(list(entries)).in_seen in (-1, *commands(entries)):
                yield list(entries)

    def _judge(self, world: World, number: int, worker: int) -> Iterator[World]:
        door = world.deliveries[number][0]
        for entries in self.readings(world):
            state = fold(entries)
            active, oldest = state.status == "active", next(iter(state.unconsumed), None)
            if door == state.door if active else door == oldest:
                host = Host(door, 0, tuple(p for p, _ in entries))
                yield world._replace(deliveries=put(world.deliveries, number, (door, worker)), hosts=put(world.hosts, worker, host))
            elif door not in state.unconsumed and not (active and door == state.door):
                is_newest = len(entries) == len(world.stream)
                if door <= state.in_seen or is_newest or self.mutation == "ack-unconfirmed":
                    yield ack(world, door)

    def _clients(self, world: World) -> Iterator[World]:
        for number, (kind, phase) in enumerate(world.clients):
            if phase != "init":
                if phase.startswith("read:"):
                    yield self._send(world, number, kind, int(phase[5:]))
                continue
            for entries in self.readings(world):
                if self._valid(kind, entries):
                    yield world._replace(clients=put(world.clients, number, (kind, f"read:{len(commands(entries))}")))
                elif len(entries) == len(world.stream) or self.mutation == "refuse-unconfirmed":
                    owed = self._valid(kind, list(enumerate(world.stream)))
                    yield world._replace(clients=put(world.clients, number, (kind, "wronged" if owed else "refused")))

    @staticmethod
    def _valid(kind: str, entries: Entries) -> bool:
        state: State = fold(entries)
        if kind == "start":
            return not entries
        if kind == "resume":
            return state.status == "suspended" and not state.unconsumed
        return bool(entries) and state.status not in ("success", "canceled")

    def _send(self, world: World, number: int, kind: str, seen: int) -> World:
        sent = len(commands(enumerate(world.stream)))
        if kind != "cancel" and self.mutation != "no-command-cas" and sent != seen:
            return world._replace(clients=put(world.clients, number, (kind, "init")))  # it reads again
        return world._replace(
            stream=(*world.stream, Entry("in", kind)), deliveries=(*world.deliveries, (len(world.stream), actor.READY)),
            clients=put(world.clients, number, (kind, "done")), acked_commands=(*world.acked_commands, kind),
        )  # fmt: skip

    def check(self, world: World, final: bool) -> None:
        super().check(world, final)
        assert all(phase != "wronged" for _, phase in world.clients), f"refused what was owed: {world}"

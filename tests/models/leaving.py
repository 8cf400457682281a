"""Model of hosts that leave in order, beside those that die: which take-overs count towards poison.

One actor with one long step. Hosts take over, begin the step, die of it or by chance, lose their lease, or leave: the step is
stopped, `handed-over` is recorded, and the delivery is handed back, whoever holds it by then. Mirrors `host_to_rest` and
`hand_over` (actor/hosting.py) and the counting in `_fold` (machine/fold.py).

Checked in every state: no take-over counts but from a host that died or lost its lease since the last progress; all but the last
of the hosts that died in the step since then are counted. So a run that is handed on in order is never given up, however often,
and one that takes its hosts down is, whoever leaves in between. Where nothing can move any more: the run ended, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.models.actor import put
from tests.models.explore import Found, explore

MUTATIONS = ("no-cas", "leave-silently", "handed-resets", "handed-stays", "leave-before-taking-over", "leave-rested", "leave-acks")
READY, ACKED = -1, -2


class Host(NamedTuple):
    """`known`: how much of the chain it has folded. `doing`: taking over, working, resting."""

    known: int
    doing: str


class World(NamedTuple):
    """Everything that can differ between two states. `where`: the worker that holds the door's delivery."""

    chain: tuple[str, ...] = ()
    where: int = READY
    delivered: bool = False
    hosts: tuple[Host | None, ...] = (None, None)
    lost: int = 0  # hosts that died or lost their lease, and
    killed: int = 0  # those that died in the step, since the last progress
    crashes: int = 0
    expiries: int = 0
    leaves: int = 0


@dataclass(frozen=True)
class Model:
    """The protocol, with one rule left out when `mutation` names it."""

    mutation: str = ""
    crashes: int = 3
    expiries: int = 1
    leaves: int = 3

    def explore(self) -> Found:
        return explore(World(), self.moves, self.check)

    def counted(self, chain: tuple[str, ...]) -> int:
        """machine/fold.py."""
        count, handed = 0, False
        for fact in chain:
            match fact:
                case "taken-over":
                    count += not handed
                    handed = handed and self.mutation == "handed-stays"
                case "handed-over":
                    handed = True
                    count = 0 if self.mutation == "handed-resets" else count
                case _:
                    count, handed = 0, False
        return count

    def moves(self, world: World) -> Iterator[World]:
        if world.where == READY:
            yield from self._deliver(world)
        elif world.where != ACKED:
            if world.hosts[world.where] is None:
                yield world._replace(where=READY)
            elif world.expiries < self.expiries:
                yield world._replace(where=READY, expiries=world.expiries + 1, lost=world.lost + 1)
        for worker, host in enumerate(world.hosts):
            if host is not None:
                yield from self._host(world, worker, host)

    @staticmethod
    def _deliver(world: World) -> Iterator[World]:
        for worker, host in enumerate(world.hosts):
            if host is not None:  # the own lease came back
                yield world._replace(where=worker)
            elif world.chain and world.chain[-1] == "ended":
                yield world._replace(where=ACKED)
            else:
                host = Host(len(world.chain), "taking over" if world.delivered else "working")
                yield world._replace(where=worker, delivered=True, hosts=put(world.hosts, worker, host))

    def _host(self, world: World, worker: int, host: Host) -> Iterator[World]:
        gone = world._replace(hosts=put(world.hosts, worker, None))
        if world.crashes < self.crashes:
            died = gone._replace(crashes=world.crashes + 1, lost=world.lost + 1)
            yield died._replace(killed=world.killed + 1) if host.doing == "working" else died
        if world.leaves < self.leaves:
            yield self._leave(gone, host)._replace(leaves=world.leaves + 1)
        match host.doing:
            case "taking over":
                yield self._append(world, worker, host, "taken-over", "working")
            case "working":
                grown = self._append(world, worker, host, "ended", "resting")
                yield grown._replace(lost=0, killed=0) if len(grown.chain) > len(world.chain) else grown
            case _:
                yield gone._replace(where=ACKED)

    def _append(self, world: World, worker: int, host: Host, fact: str, following: str) -> World:
        if host.known != len(world.chain) and self.mutation != "no-cas":  # fenced
            return world._replace(hosts=put(world.hosts, worker, None))
        after = Host(len(world.chain) + 1, following)
        return world._replace(chain=(*world.chain, fact), hosts=put(world.hosts, worker, after))

    def _leave(self, gone: World, host: Host) -> World:
        tells = host.doing == "working" or (host.doing, self.mutation) in (
            ("taking over", "leave-before-taking-over"), ("resting", "leave-rested"),
        )  # fmt: skip
        if tells and host.known != len(gone.chain):  # fenced: another one hosts by the door
            return gone
        if tells and self.mutation != "leave-silently":
            gone = gone._replace(chain=(*gone.chain, "handed-over"))
        if gone.where == ACKED:
            return gone
        robbed = gone.where != READY and gone.hosts[gone.where] is not None
        return gone._replace(where=ACKED if self.mutation == "leave-acks" else READY, lost=gone.lost + robbed)

    def check(self, world: World, final: bool) -> None:
        counted = self.counted(world.chain)
        assert counted <= world.lost, f"{counted} take-overs count, of hosts that left in order too: {world}"
        assert world.killed <= counted + 1, f"{world.killed} hosts died in the step, {counted} count: {world}"
        assert world.chain.count("ended") <= 1, f"recorded twice: {world}"
        assert not final or world.chain[-1:] == ("ended",), f"stuck: {world}"

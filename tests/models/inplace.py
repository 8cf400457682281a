"""Model of a parent with two children in place and the take-over of it (architecture.md, 1.2 and 1.4).

Each child has two steps; all chains are written under the parent's one door. A lease may run out under a live host in two
ways: the host was frozen and knows it once it wakes, or its renewals got lost and it knows nothing. Mirrors
`Journal.append`, `_refused`, `catch_up`, `take_over` and `_fence` (actor/journal.py), `host_to_rest` (actor/hosting.py), `check_lease`
(actor/activation.py) and `judge` for an active actor (machine/lease.py).

Checked in every state: no step is recorded twice. After a take-over nothing of a former host is recorded on a chain that was
open then, and it begins at most one more step there, whose refusal tells it; one who was frozen begins none anywhere.
Where nothing can move any more: the parent ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from tests.models.actor import put
from tests.models.explore import Found, explore

MUTATIONS = ("no-cas", "no-child-take-over", "adopt-blindly", "fence-once", "no-suspicion", "no-root-take-over", "keep-what-is-late")
STEPS = ("s1", "s2")
READY, ACKED = -1, -2
Chain: TypeAlias = tuple[tuple[str, int], ...]  # (fact, who hosted)


class Host(NamedTuple):
    """What one activation knows. Chains are known as prefixes of what is stored."""

    id: int
    root: int  # facts of the parent's own chain,
    children: tuple[int, ...]  # and of each child's
    doing: tuple[str, ...] = ("", "")  # the step under way in each child
    fencing: tuple[int, ...] | None = ()  # children to take over still; None: the parent itself; (): all is done
    was_open: tuple[int, ...] = ()  # children that were open when it took over
    frozen: bool = False  # it was, beyond its lease


class World(NamedTuple):
    """Everything that can differ between two states. `where`: the worker that holds the door's delivery."""

    root: Chain = ()
    children: tuple[Chain, ...] = ((), ())
    where: int = READY
    hosts: tuple[Host | None, ...] = (None, None)
    hosted: int = 0
    fenced: tuple[int, ...] = (0, 0)  # by child: all hosts before this one were told that they are none
    newest: int = 0  # of the hosts that have taken over
    crashes: int = 0
    expiries: int = 0
    late: frozenset[tuple[int, int]] = frozenset()  # (host, child): begun on a chain that was taken over
    wrong: str = ""


def recorded(chain: Chain) -> list[str]:
    return [name for name, _ in chain if name in STEPS]


def is_open(chain: Chain) -> bool:
    return bool(chain) and len(recorded(chain)) < len(STEPS)


@dataclass(frozen=True)
class Model:
    """The protocol, with one rule left out when `mutation` names it."""

    mutation: str = ""
    crashes: int = 1
    expiries: int = 2

    def explore(self) -> Found:
        return explore(World(), self.moves, self.check)

    def moves(self, world: World) -> Iterator[World]:
        if world.where == READY:
            for worker, host in enumerate(world.hosts):
                if host is None:
                    yield self._begin(world, worker)
                else:  # the own lease came back
                    yield world._replace(where=worker)
        elif world.where != ACKED:
            yield from self._expire(world)
        for worker, host in enumerate(world.hosts):
            if host is not None:
                yield from self._host(world, worker, host)

    @staticmethod
    def _begin(world: World, worker: int) -> World:
        if world.root and world.root[-1][0] == "ended":
            return world._replace(where=ACKED)
        known = tuple(len(chain) for chain in world.children)
        was_open = tuple(n for n, chain in enumerate(world.children) if is_open(chain))
        fencing = None if world.hosted else ()  # delivered for the first time: nobody hosted before
        host = Host(world.hosted + 1, len(world.root), known, ("", ""), fencing, was_open)
        return world._replace(where=worker, hosted=host.id, hosts=put(world.hosts, worker, host))

    def _expire(self, world: World) -> Iterator[World]:
        host = world.hosts[world.where]
        if host is None:
            yield world._replace(where=READY)
        elif world.expiries < self.expiries:
            for frozen in (False, True):
                sleeper = put(world.hosts, world.where, host._replace(frozen=frozen or host.frozen))
                yield world._replace(expiries=world.expiries + 1, where=READY, hosts=sleeper)

    def _host(self, world: World, worker: int, host: Host) -> Iterator[World]:
        if world.crashes < self.crashes:
            yield self._drop(world, worker)._replace(crashes=world.crashes + 1)
        if host.fencing is None:
            yield self._take_over(world, worker, host)
        elif host.fencing:
            for child in host.fencing:
                yield self._fence(world, worker, host, child)
        else:
            yield from self._work(world, worker, host)

    @staticmethod
    def _drop(world: World, worker: int) -> World:
        return world._replace(hosts=put(world.hosts, worker, None))

    def _take_over(self, world: World, worker: int, host: Host) -> World:
        todo = () if self.mutation == "no-child-take-over" else host.was_open
        if self.mutation == "no-root-take-over":
            return self._told(world, worker, host._replace(fencing=todo))
        if len(world.root) != host.root:
            return self._drop(world, worker)
        grown = world._replace(root=(*world.root, ("taken-over", host.id)))
        return self._told(grown, worker, host._replace(root=host.root + 1, fencing=todo))

    def _fence(self, world: World, worker: int, host: Host, child: int) -> World:
        """One try to take a child over; again as long as others write on its chain and it is open."""
        rest = tuple(n for n in host.fencing or () if n != child)
        after = self._append(world, worker, host, child, "taken-over")
        following = after.hosts[worker]
        if following is None:
            return after
        chain = after.children[child]
        landed = len(chain) > len(world.children[child])
        if landed or not is_open(chain) or self.mutation == "fence-once":
            return self._told(after, worker, following._replace(fencing=rest))
        return after

    @staticmethod
    def _told(world: World, worker: int, host: Host) -> World:
        """From when all is taken over on, whoever hosted before is to know it."""
        world = world._replace(hosts=put(world.hosts, worker, host))
        if host.fencing:
            return world
        fenced = tuple(max(f, host.id) if n in host.was_open else f for n, f in enumerate(world.fenced))
        return world._replace(fenced=fenced, newest=max(world.newest, host.id))

    def _append(self, world: World, worker: int, host: Host, child: int, fact: str) -> World:
        """Store a fact on a child's chain; a refusal asks the parent's chain who hosts, and adopts what is there."""
        chain, known = world.children[child], host.children[child]
        doing = put(host.doing, child, "")
        if known == len(chain) or self.mutation == "no-cas":
            grown = world._replace(children=put(world.children, child, (*chain, (fact, host.id))))
            following = host._replace(children=put(host.children, child, len(chain) + 1), doing=doing)
            wrong = f"host {host.id} recorded {fact} of child {child} after it was taken over" if host.id < world.fenced[child] else ""
            return grown._replace(hosts=put(world.hosts, worker, following), wrong=world.wrong or wrong)
        if self.mutation != "adopt-blindly" and len(world.root) > host.root:
            return self._drop(world, worker)
        following = host._replace(children=put(host.children, child, len(chain)), doing=doing)
        return world._replace(hosts=put(world.hosts, worker, following))

    def _read(self, world: World, worker: int, host: Host) -> World:
        """News: it reads the chains, in the middle of a step too, which gives way to what somebody else recorded."""
        if len(world.root) > host.root:
            return self._drop(world, worker)
        known = tuple(len(chain) for chain in world.children)
        same = known if self.mutation == "keep-what-is-late" else host.children
        doing = tuple(step if before == now else "" for step, before, now in zip(host.doing, same, known, strict=True))
        return world._replace(hosts=put(world.hosts, worker, host._replace(children=known, doing=doing)))

    def _work(self, world: World, worker: int, host: Host) -> Iterator[World]:
        if any(known < len(chain) for known, chain in zip(host.children, world.children, strict=True)):
            yield self._read(world, worker, host)
        done = [recorded(chain[:known]) for chain, known in zip(world.children, host.children, strict=True)]
        for child, names in enumerate(done):
            if host.doing[child]:
                yield self._append(world, worker, host, child, host.doing[child])
            elif len(names) < len(STEPS):
                if host.frozen and self.mutation != "no-suspicion":  # it reads again, and sees that it is none any more
                    yield self._drop(world, worker)
                    continue
                yield self._begin_step(world, worker, host, child, STEPS[len(names)])
        if all(len(names) == len(STEPS) for names in done) and not any(host.doing):
            dropped = self._drop(world, worker)
            is_ours = len(world.root) == host.root or self.mutation == "no-cas"
            yield dropped._replace(root=(*world.root, ("ended", host.id)), where=ACKED) if is_ours else dropped

    @staticmethod
    def _begin_step(world: World, worker: int, host: Host, child: int, step: str) -> World:
        late, wrong = world.late, ""
        if (host.id, child) in late or (host.frozen and host.id < world.newest):
            wrong = f"host {host.id} begins {step} of child {child} after it was taken over"
        elif host.id < world.fenced[child]:
            late |= {(host.id, child)}
        following = host._replace(doing=put(host.doing, child, step))
        return world._replace(hosts=put(world.hosts, worker, following), late=late, wrong=world.wrong or wrong)

    @staticmethod
    def check(world: World, final: bool) -> None:
        assert not world.wrong, f"{world.wrong}: {world}"
        for chain in (world.root, *world.children):
            names = [name for name, _ in chain if name != "taken-over"]
            assert len(set(names)) == len(names), f"recorded twice: {world}"
        assert not final or (world.root and world.root[-1][0] == "ended"), f"stuck: {world}"

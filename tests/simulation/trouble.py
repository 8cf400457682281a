"""Trouble in a world: hosts are killed, frozen and stopped; users cancel, leave, ask twice and travel in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noria import Noria
from noria.machine.state import ENDED, RESTING, Tree
from noria.machine.view import view
from noria.ports import RunKey
from tests.properties.interpreter import Graph
from tests.simulation.graphs import plain_steps
from tests.simulation.members import LEASE, Member
from tests.simulation.watch import Violation

if TYPE_CHECKING:
    from tests.simulation.world import World

MOST_RUNS = 8
TAKES_HOSTS = ("kill", "freeze", "redeliver", "jump")


class Trouble:
    """Made by chance, of one world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def make(self) -> None:
        world = self.world
        if world.kind.travels and world.more.random() < 0.3:
            self._travel(world.more.choice(world.runs))
        if world.kind.cancels and world.more.random() < 0.15:
            self._cancel(world.more.choice(world.runs))
        chance, workers = world.chance, [w for w in world.workers if w.lives and w.wire is not None]
        what = chance.choice(["kill", "freeze", "stop", "start", "redeliver", "jump", "cancel", "leave", "again", "nothing", "nothing"])
        if what in TAKES_HOSTS and world.watch.is_near_poison():  # a run that loses one host too many must fail: that is no breach
            return
        match what:
            case "kill" if workers:
                victim = chance.choice(workers)
                world.trace(f"kill {victim.process}")
                victim.kill()
            case "freeze" if workers:
                self._freeze(chance.choice(workers), chance.uniform(0.5, 3) * LEASE)
            case "stop" if workers:
                chance.choice(workers).stop.set()
            case "start" if len(workers) < 3:
                world.start_worker()
            case "redeliver":
                self._redeliver()
            case "jump" if workers:
                chance.choice(workers).process.skew += chance.uniform(-100, 100)
            case "cancel" if chance.random() < 0.3:
                self._cancel(chance.choice(world.runs))
            case "leave":
                for user in world.users:
                    if chance.random() < 0.5:
                        user.kill()
            case "again":
                key = chance.choice(world.runs)
                world.start(key)
                world.as_user(f"restarts {key.run}", lambda noria: noria.create_run(world.flow(key), key.run).restart())
            case _:
                pass

    def _freeze(self, member: Member, seconds: float) -> None:
        self.world.trace(f"freeze {member.process} for {seconds:.3f}")
        member.process.frozen = True
        self.world.loop.call_later(seconds, self._thaw, member)

    def _thaw(self, member: Member) -> None:
        member.process.frozen = False
        self.world.trace(f"thaw {member.process}")

    def _redeliver(self) -> None:
        """A lease that expires too soon: two hold the same command."""
        for consumer in self.world.server.consumers.values():
            if consumer.pending:
                consumer.expire(self.world.chance.choice(list(consumer.pending)))

    def _cancel(self, key: RunKey) -> None:
        world = self.world

        async def cancel(noria: Noria) -> str:
            run = noria.create_run(world.flow(key), key.run)
            world.cancelled.add(key)
            await run.cancel(timeout=60)
            tree = world.watch.tree(key)
            if tree.root.status not in ENDED and not tree.cancel:
                raise Violation(f"cancel() of {key} returned, but it is {tree.root.status}")
            return "canceled"

        world.as_user(f"cancels {key.run}", cancel)

    def _travel(self, key: RunKey) -> None:
        """Somebody sends a run back to a step that it came to, or forks it there; perhaps with another input."""
        world = self.world
        tree, more = world.watch.trees.get(key), world.more
        if tree is None or tree.root.status not in RESTING - {"canceled"}:
            return
        if not (known := targets(world.specs[key.workflow], key, tree)):
            return
        inputs = [target for target in known if target[1]]
        target, index = more.choice(inputs if inputs and more.random() < 0.5 else known)
        given = more.randint(0, 50) if index and more.random() < 0.7 else None
        per_step = world.kind.words and world.asks_for_one(key)
        world.counts["travels"] += 1
        if more.random() < 0.6 or len(world.runs) > MOST_RUNS:
            world.as_user(
                f"sends {key.run} to {target}",
                lambda noria: noria.create_run(world.flow(key), key.run).time_travel(target, input=given, per_step=per_step),
            )
        else:
            fork = RunKey(key.workflow, f"f{len(world.runs)}")
            world.runs.append(fork)
            world.origins[fork] = key

            async def begin(noria: Noria) -> str:
                return (await noria.create_run(world.flow(key), key.run).fork(target, input=given, run_id=fork.run, per_step=per_step)).id

            world.as_user(f"forks {key.run} at {target}", begin)


def targets(spec: Graph, key: RunKey, tree: Tree) -> list[tuple[str, int]]:
    """Steps to send a run back to, so that it can be told what comes of it: all before them is known. With the index of the
    entry of those that may get an input."""
    plain = {step: index for step, index in plain_steps(spec).items() if step in tree.root.steps}
    found = view(tree, *key, nested=True)["steps"] if tree.root.status == "success" else plain
    return [(step, plain.get(step, 0)) for step in found if not step.rpartition(".")[2].startswith(("mapping-", "sleep-"))]

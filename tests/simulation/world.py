"""A world by a seed: workers, users and runs in bad weather. Users answer what the runs are owed, and then misbehave."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from noria import Context, Noria, NoriaError, Workflow
from noria.machine.state import ENDED, Tree
from noria.machine.view import status, suspensions
from noria.ports import RunKey
from noria.testing.loop import VirtualLoop, run
from noria.testing.server import Server
from tests.simulation.graphs import expected, graph, make_flow
from tests.simulation.kinds import kind
from tests.simulation.members import LEASE, Errors, Member
from tests.simulation.trouble import Trouble
from tests.simulation.verdict import Verdict
from tests.simulation.watch import Violation, Watch
from tests.simulation.weather import Weather

LOG_SECONDS = 250.0  # facts age while runs sleep
PATIENCE_SECONDS = 1000.0  # longer than the longest sleep: by then there is a new fact, or everything has ended
MOST_TURNS = 100_000  # from one fact to the next; worlds take some thousands in all
MOST_FACTS = 4_000  # most worlds have some hundreds
KEPT = 200


class World:
    """One seed's world."""

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.loop, self.seed, self.chance = loop, seed, random.Random(seed)
        self.more = random.Random(seed + 2)  # of what came later: the worlds before are as they were
        self.kind = kind(self.more, seed)
        self.server = Server(LOG_SECONDS, replicas=self.kind.stale > 0)
        self.watch = Watch(self.server)
        self._digest, self.tail = hashlib.sha256(), list[str]()
        self.weather = Weather(random.Random(seed + 1), self.trace, self.watch.is_near_poison, self.kind.stale)
        self.counts: Counter[str] = Counter()
        self.executions: Counter[str] = Counter()
        specs = [graph(self.chance, self.kind.mixed, self.kind.wide) for _ in range(self.chance.randint(1, 3))]
        self.flows = [make_flow(f"w{n}", spec, self.executed).commit() for n, spec in enumerate(specs)]
        self.expected = {flow.id: expected(spec) for flow, spec in zip(self.flows, specs, strict=True)}
        self.specs = {flow.id: spec for flow, spec in zip(self.flows, specs, strict=True)}
        self.runs = [RunKey(self.chance.choice(self.flows).id, f"r{n}") for n in range(self.chance.randint(1, 5))]
        self.stepwise = {key for key in self.runs if self.kind.steps and "bail" not in str(self.specs[key.workflow])}
        self.started: set[RunKey] = set()
        self.origins: dict[RunKey, RunKey] = {}  # of forks
        self.cancelled: set[RunKey] = set()
        self.workers: list[Member] = []
        self.users: list[Member] = []
        self.trouble = Trouble(self)
        self._facts = self._turns = 0
        self.forgotten: list[str] = []  # errors of tasks that nobody looked at
        loop.set_exception_handler(self._forgot)
        loop.on_turn = self._check

    def trace(self, text: str) -> None:
        line = f"{self.loop.time():.6f} {text}"
        self._digest.update(line.encode())
        self.tail.append(line)
        if len(self.tail) > 2 * KEPT:
            del self.tail[:KEPT]

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def executed(self, ctx: Context) -> None:
        self.executions[ctx.idempotency_key] += 1
        self.trace(f"executes {ctx.idempotency_key}")

    def _check(self) -> None:
        if self.watch.facts != self._facts:
            self._facts, self._turns = self.watch.facts, self.loop.turns
        if self.loop.turns - self._turns > MOST_TURNS or self._facts > MOST_FACTS:
            raise Violation(f"{self.loop.turns} turns, {self._facts} facts, and no end: {self._open()[:5]}")
        if self.watch.violation is not None:
            raise Violation(self.watch.violation)

    def _forgot(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        killed = any(process.killed and context.get("future") in process.tasks for process in self.loop.processes)  # nobody is left to look
        if "exception" in context and not killed:
            self.forgotten.append(f"{context['message']}: {context['exception']!r}")

    # Processes --------------------------------------------------------------------------------------------------

    def start_worker(self) -> None:
        self.counts["workers"] += 1
        member = Member(self, f"worker{self.counts['workers']}")
        concurrency = self.chance.choice([1, 3, 100])
        self.workers.append(member)
        self.loop.spawn(member.process, self._work(member, concurrency))

    async def _work(self, member: Member, concurrency: int) -> None:
        try:
            async with member.client().worker(*self.flows, lease=LEASE, concurrency=concurrency, grace=1.0):
                await member.stop.wait()
        except NoriaError as error:
            self.trace(f"{member.process} gives up: {error!r}")
        finally:
            member.process.killed = True

    def as_user(self, name: str, call: Callable[[Noria], Any]) -> None:
        """Somebody asks something of the runs; what comes of it is his affair."""
        self.counts["calls"] += 1
        member = Member(self, f"user{self.counts['calls']} {name}")
        self.users.append(member)

        async def ask() -> None:
            try:
                result = await call(member.client())
                self.trace(f"{member.process}: {getattr(result, 'status', result)}")
            except (NoriaError, TimeoutError) as error:
                self.trace(f"{member.process}: {error!r}")

        self.loop.spawn(member.process, ask())

    # What the runs are owed -------------------------------------------------------------------------------------

    def answer(self) -> None:
        """A worker where there is none, a start, a resume of what is suspended."""
        self.workers = [w for w in self.workers if w.lives]
        if not any(not w.process.frozen for w in self.workers):
            self.start_worker()
        for key in self.runs:
            tree = self.watch.trees.get(key)
            if tree is None or not tree.root.started:
                self.start(key)
            elif self.kind.words and status(tree) not in ENDED and self.more.random() < 0.3:
                self._resume(key, tree)  # whoever sees a question need not wait until the run rests
            elif status(tree) == "suspended" and (self.weather.calm or self.chance.random() < 0.5):
                self._resume(key, tree)
            elif status(tree) == "paused":
                self._step(key)

    def start(self, key: RunKey) -> None:
        per_step = self.asks_for_one(key)

        async def start(noria: Noria) -> Any:
            found = await noria.create_run(self.flow(key), key.run).start_async(1, per_step=per_step)
            self.started.add(key)
            return found

        self.as_user(f"starts {key.run}", start)

    def _resume(self, key: RunKey, tree: Tree) -> None:
        found = suspensions(tree)
        if not found:
            return
        _, suspension = self.chance.choice(found)
        path, index, data, per_step = list(suspension["path"]), suspension["index"], suspension["payload"]["k"], self.asks_for_one(key)
        for _ in range(self.chance.choice([1, 1, 2])):  # rivals
            self.as_user(
                f"resumes {key.run}",
                lambda noria: noria.create_run(self.flow(key), key.run).resume(data, step=path, index=index, per_step=per_step),
            )

    def _step(self, key: RunKey) -> None:
        per_step = self.asks_for_one(key) if self.kind.words else self.more.random() < 0.9
        self.as_user(f"lets {key.run} go on", lambda noria: noria.create_run(self.flow(key), key.run).resume(per_step=per_step))

    def asks_for_one(self, key: RunKey) -> bool:
        """Whether whoever lets a run go on asks for one step only."""
        if not self.kind.words:
            return key in self.stepwise
        return "bail" not in str(self.specs[key.workflow]) and self.more.random() < 0.5

    def flow(self, key: RunKey) -> Workflow:
        return next(f for f in self.flows if f.id == key.workflow)

    # The end ----------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        errors = Errors()
        loggers = [logging.getLogger(name) for name in ("noria.host", "noria.actor")]
        for logger in loggers:
            logger.addHandler(errors)
            logger.propagate = False
        try:
            await self._storm()
            await self._calm()
            await self._leave()
            await self._calm()
        finally:
            for logger in loggers:
                logger.removeHandler(errors)
                logger.propagate = True
        for found in (*errors.found, *self.forgotten):
            raise Violation(f"the engine did not expect this: {found}")
        await Verdict(self).judge()

    async def _storm(self) -> None:
        for _ in range(self.chance.randint(5, 40)):
            self.answer()
            self.trouble.make()
            await asyncio.sleep(self.chance.choice([0.05, 0.5, 2.0, LEASE]))

    async def _calm(self) -> None:
        self.weather.calm = True
        for member in (*self.workers, *self.users):
            member.process.frozen = False
        known, end = -1, 0.0
        while not self._is_over():
            if known != self.watch.facts:
                known, end = self.watch.facts, self.loop.time() + PATIENCE_SECONDS
            if self.loop.time() > end:
                raise Violation(f"stuck: {self._open()[:5]}")
            self.answer()
            await asyncio.sleep(LEASE)

    async def _leave(self) -> None:
        """Nobody asks for anything any more while it is judged; what is under way lands before."""
        for user in self.users:
            user.kill()
        await asyncio.sleep(LEASE)

    def _is_over(self) -> bool:
        return not self._open()

    def _open(self) -> list[str]:
        """What has not come to its end: runs without one, commands that nobody acknowledged."""
        trees = {key: self.watch.tree(key) for key in self.runs}
        found = [f"{key.run} is {status(tree)}" for key, tree in trees.items() if tree.root.status not in ENDED]
        found += [f"{actor} goes on" for actor in self.watch.left_over()]
        for name, consumer in self.server.consumers.items():
            held = sorted({*consumer.pending, *consumer.new, *consumer.again} & self.server.messages.keys())
            found += [f"command {sequence} of {name} is not acknowledged" for sequence in held]
        return found


async def _live(loop: VirtualLoop, seed: int, made: list[World]) -> str:
    world = World(loop, seed)
    made.append(world)
    await world.live()
    return world.digest


def simulate(seed: int) -> str:
    """Live through the world of a seed: the digest of its trace. Raises Violation with the seed and the trace's end."""
    made: list[World] = []
    quiet = {name: logging.getLogger(name).level for name in ("noria", "noria.step", "asyncio")}
    for name in quiet:
        logging.getLogger(name).setLevel(logging.CRITICAL if name != "noria" else logging.ERROR)
    try:
        return run(lambda loop: _live(loop, seed, made), seed)
    except Exception as error:
        tail = "\n".join(made[0].tail[-60:]) if made else ""
        raise Violation(f"seed {seed}: {error or type(error).__name__}\n{tail}") from error
    finally:
        for name, level in quiet.items():
            logging.getLogger(name).setLevel(level)

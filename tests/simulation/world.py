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
from noria.ports import ActorKey, RunKey
from noria.testing.loop import Process, VirtualLoop, current_process, run
from noria.testing.memory import MemoryBroker
from noria.testing.server import Server
from tests.simulation.graphs import expected, graph, make_flow
from tests.simulation.watch import Violation, Watch
from tests.simulation.weather import FaultyWire, Weather

LEASE = 5.0
LOG_SECONDS = 250.0  # facts age while runs sleep
PATIENCE_SECONDS = 1000.0  # longer than the longest sleep: by then there is a new fact, or everything has ended
MOST_TURNS = 100_000  # from one fact to the next; worlds take some thousands in all
MOST_FACTS = 5_000  # worlds have some hundreds
KEPT = 200
TAKES_HOSTS = ("kill", "freeze", "redeliver", "jump")


class Member:
    """A process of the world with its connection and client."""

    def __init__(self, world: World, name: str, mortal: bool = True) -> None:
        self.process = Process(name)
        self.wire: FaultyWire | None = None
        self.stop = asyncio.Event()
        self._world, self._mortal = world, mortal

    def client(self) -> Noria:
        """Made inside the process."""
        self.wire = FaultyWire(self._world.weather, self.process, self._mortal)
        return Noria(MemoryBroker(self._world.server, "sim", self.wire))

    @property
    def lives(self) -> bool:
        return not self.process.killed

    def kill(self) -> None:
        if self.wire is not None:
            self.wire.kill()


class Errors(logging.Handler):
    """What the engine did not expect."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None and record.exc_info[1] is not None:
            self.found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


class World:
    """One seed's world."""

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.loop, self.seed, self.chance = loop, seed, random.Random(seed)
        self.server = Server(LOG_SECONDS)
        self.watch = Watch(self.server)
        self._digest, self.tail = hashlib.sha256(), list[str]()
        self.weather = Weather(random.Random(seed + 1), self.trace, self.watch.is_near_poison)
        self.counts: Counter[str] = Counter()
        self.executions: Counter[str] = Counter()
        specs = [graph(self.chance) for _ in range(self.chance.randint(1, 3))]
        self.flows = [make_flow(f"w{n}", spec, self.executed).commit() for n, spec in enumerate(specs)]
        self.expected = {flow.id: expected(spec) for flow, spec in zip(self.flows, specs, strict=True)}
        self.specs = {flow.id: spec for flow, spec in zip(self.flows, specs, strict=True)}
        self.runs = [RunKey(self.chance.choice(self.flows).id, f"r{n}") for n in range(self.chance.randint(1, 5))]
        self.started: set[RunKey] = set()
        self.cancelled: set[RunKey] = set()
        self.workers: list[Member] = []
        self.users: list[Member] = []
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
        task = context.get("future")
        killed = isinstance(task, asyncio.Task) and task.get_context().run(current_process).killed  # nobody is left to look
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
                self._start(key)
            elif status(tree) == "suspended" and (self.weather.calm or self.chance.random() < 0.5):
                self._resume(key, tree)

    def _start(self, key: RunKey) -> None:
        async def start(noria: Noria) -> Any:
            found = await noria.create_run(self._flow(key), key.run).start_async(1)
            self.started.add(key)
            return found

        self.as_user(f"starts {key.run}", start)

    def _resume(self, key: RunKey, tree: Tree) -> None:
        found = suspensions(tree)
        if not found:
            return
        _, suspension = self.chance.choice(found)
        path, index, data = list(suspension["path"]), suspension["index"], suspension["payload"]["k"]
        for _ in range(self.chance.choice([1, 1, 2])):  # rivals
            self.as_user(f"resumes {key.run}", lambda noria: noria.create_run(self._flow(key), key.run).resume(data, step=path, index=index))

    def _flow(self, key: RunKey) -> Workflow:
        return next(f for f in self.flows if f.id == key.workflow)

    # Misbehaviour -----------------------------------------------------------------------------------------------

    def misbehave(self) -> None:
        chance, workers = self.chance, [w for w in self.workers if w.lives and w.wire is not None]
        what = chance.choice(["kill", "freeze", "stop", "start", "redeliver", "jump", "cancel", "leave", "again", "nothing", "nothing"])
        if what in TAKES_HOSTS and self.watch.is_near_poison():  # a run that loses one host too many must fail: that is no breach
            return
        match what:
            case "kill" if workers:
                victim = chance.choice(workers)
                self.trace(f"kill {victim.process}")
                victim.kill()
            case "freeze" if workers:
                self._freeze(chance.choice(workers), chance.uniform(0.5, 3) * LEASE)
            case "stop" if workers:
                chance.choice(workers).stop.set()
            case "start" if len(workers) < 3:
                self.start_worker()
            case "redeliver":
                self._redeliver()
            case "jump" if workers:
                chance.choice(workers).process.skew += chance.uniform(-100, 100)
            case "cancel" if chance.random() < 0.3:
                self._cancel(chance.choice(self.runs))
            case "leave":
                for user in self.users:
                    if chance.random() < 0.5:
                        user.kill()
            case "again":
                key = chance.choice(self.runs)
                self._start(key)
                self.as_user(f"restarts {key.run}", lambda noria: noria.create_run(self._flow(key), key.run).restart())
            case _:
                pass

    def _freeze(self, member: Member, seconds: float) -> None:
        self.trace(f"freeze {member.process} for {seconds:.3f}")
        member.process.frozen = True
        self.loop.call_later(seconds, self._thaw, member)

    def _thaw(self, member: Member) -> None:
        member.process.frozen = False
        self.trace(f"thaw {member.process}")

    def _redeliver(self) -> None:
        """A lease that expires too soon: two hold the same command."""
        for consumer in self.server.consumers.values():
            if consumer.pending:
                consumer.expire(self.chance.choice(list(consumer.pending)))

    def _cancel(self, key: RunKey) -> None:
        async def cancel(noria: Noria) -> str:
            run = noria.create_run(self._flow(key), key.run)
            self.cancelled.add(key)
            await run.cancel(timeout=60)
            tree = self.watch.tree(key)
            if tree.root.status not in ENDED and not tree.cancel:
                raise Violation(f"cancel() of {key} returned, but it is {tree.root.status}")
            return "canceled"

        self.as_user(f"cancels {key.run}", cancel)

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
        finally:
            for logger in loggers:
                logger.removeHandler(errors)
                logger.propagate = True
        for found in (*errors.found, *self.forgotten):
            raise Violation(f"the engine did not expect this: {found}")
        await self._judge()

    async def _storm(self) -> None:
        for _ in range(self.chance.randint(5, 40)):
            self.answer()
            self.misbehave()
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

    def _is_over(self) -> bool:
        return not self._open()

    def _open(self) -> list[str]:
        """What has not come to its end: runs without one, commands that nobody acknowledged."""
        trees = {key: self.watch.tree(key) for key in self.runs}
        found = [f"{key.run} is {status(tree)}" for key, tree in trees.items() if tree.root.status not in ENDED]
        for name, consumer in self.server.consumers.items():
            held = sorted({*consumer.pending, *consumer.new, *consumer.again} & self.server.messages.keys())
            found += [f"command {sequence} of {name} is not acknowledged" for sequence in held]
        return found

    async def _judge(self) -> None:
        noria = Noria(MemoryBroker(self.server, "sim", FaultyWire(self.weather, Process("judge"), mortal=False)))
        for key in self.runs:
            wanted, value, state = self.expected[key.workflow]
            record = await noria.runs.get(key.run, self._flow(key))
            tree = self.watch.tree(key)
            if record is None or record.status != tree.root.status:
                raise Violation(f"{key}: its log says {tree.root.status}, its reader {record}")
            if record.status == "canceled" and key in self.cancelled:
                continue
            if record.status != wanted:
                raise Violation(f"{key} came to {record.status} ({record.error}), not {wanted}: {self.specs[key.workflow]}")
            if wanted == "success" and record.result != value:
                raise Violation(f"{key} gives {record.result}, not {value}: {self.specs[key.workflow]}")
            if wanted == "success" and "bail" not in str(self.specs[key.workflow]) and record.state != state:
                raise Violation(f"{key} has the state {record.state}, not {state}: {self.specs[key.workflow]}")
            if await noria.broker.log.last(ActorKey(*key)) is None and record.result is None and wanted == "success":
                raise Violation(f"{key}: its result aged out")


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

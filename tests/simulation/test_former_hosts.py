"""What a former host may still write, and what it learns from a refusal (found by tests/models/inplace.py and record.py)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from noria import Context, Noria, Step, Workflow, step
from noria.actor.journal import Fenced, Journal
from noria.actor.load import load
from noria.contract import commands, envelopes
from noria.contract.facts import BlockEnded, Fact, Finished, Rested, StepEnded, StepSuspended, TakenOver
from noria.contract.values import dumps
from noria.ids import Nonces
from noria.limits import LOG_TTL_SECONDS
from noria.ports import ActorKey
from noria.testing.loop import Process, VirtualLoop, current_process, run
from noria.testing.memory import MemoryBroker
from noria.testing.server import Server
from noria.testing.wire import Wire, perform

T = TypeVar("T")
KEY = ActorKey("w", "r")
CHILD = ActorKey("w", "r", "c")


def simulated(test: Callable[[MemoryBroker], Awaitable[T]]) -> T:
    async def main(_: object) -> T:
        return await test(MemoryBroker(Server(), "noria"))

    return run(main, 0)


def ended(name: str) -> StepEnded:
    return StepEnded(name, "success", 1.0, 2.0)


async def begun(broker: MemoryBroker) -> Journal:
    """The journal of the host that began a run with a child in place, which has one fact."""
    await broker.commands.send(KEY, commands.encode(commands.Start("id", 1.0)), 0)
    first = await host(broker)
    await first.append(first.tree.root, [ended("before")])
    await first.append(first.tree.actor("c"), [ended("s1")])
    return first


async def host(broker: MemoryBroker) -> Journal:
    """Somebody who hosts by the start, as he finds the run now."""
    return Journal(broker, KEY, (await load(broker, KEY)).tree, 1, Nonces())


def test_a_refusal_on_a_childs_chain_tells_a_former_host_what_it_is() -> None:
    async def check(broker: MemoryBroker) -> None:
        former = await begun(broker)
        await (await host(broker)).take_over()
        with pytest.raises(Fenced):
            await former.append(former.tree.actor("c"), [ended("s2")])

    simulated(check)


def test_a_host_adopts_what_a_former_one_recorded_meanwhile() -> None:
    async def check(broker: MemoryBroker) -> None:
        former = await begun(broker)
        successor = await host(broker)
        await successor.append(successor.tree.root, [TakenOver(1.0)])
        await former.append(former.tree.actor("c"), [ended("s2")])
        await successor.append(successor.tree.actor("c"), [ended("s2")])
        assert successor.tree.actor("c").host == former.nonce and "s2" in successor.tree.actor("c").steps

    simulated(check)


def test_what_was_read_meanwhile_is_not_recorded_again() -> None:
    async def check(broker: MemoryBroker) -> None:
        former = await begun(broker)
        successor = await host(broker)
        await successor.append(successor.tree.root, [TakenOver(1.0)])
        await former.append(former.tree.actor("c"), [ended("s2")])
        await successor.catch_up()  # while it runs the same step
        await successor.append(successor.tree.actor("c"), [ended("s2")])
        assert [fact for entry in await broker.log.read(CHILD) for fact in envelopes.decode(entry.body).facts] == [ended("s1"), ended("s2")]
        await successor.append(successor.tree.actor("c"), [ended("s3")])
        assert successor.tree.actor("c").host == successor.nonce

    simulated(check)


def test_a_host_adopts_a_block_with_what_its_members_recorded() -> None:
    async def check(broker: MemoryBroker) -> None:
        former = await begun(broker)
        successor = await host(broker)
        await successor.append(successor.tree.root, [TakenOver(1.0)])
        await former.append(former.tree.actor("beside"), [StepEnded("beside", "success", 1.0, 2.0, output=1, leaf=True)])
        await former.append(former.tree.actor("c.arm"), [StepEnded("arm", "success", 1.0, 2.0, output=2, leaf=True)])
        await former.append(former.tree.actor("c"), [BlockEnded("branch", "branch", "success", 2.0, segments=["arm"])])
        await successor.append(successor.tree.actor("c"), [ended("s2")])
        assert successor.tree.actor("c").prev == {"arm": 2}
        assert successor.tree.actor("beside").output == 1  # the cursor passes over nothing

    simulated(check)


def test_a_take_over_that_came_between_is_no_fence_of_ours() -> None:
    async def check(broker: MemoryBroker) -> None:
        await begun(broker)
        second = await host(broker)
        await second.append(second.tree.root, [TakenOver(1.0)])
        third = await host(broker)
        await second.append(second.tree.actor("c"), [TakenOver(1.0)])  # late: the third host knows nothing of it
        await third.take_over()
        last = await broker.log.last(CHILD)
        assert last is not None and envelopes.decode(last.body).host == third.nonce
        with pytest.raises(Fenced):
            await second.append(second.tree.actor("c"), [ended("s2")])

    simulated(check)


def test_a_take_over_leaves_alone_who_has_a_host_of_its_own_below_a_child_that_has() -> None:
    grandchild = ActorKey("w", "r", "c.g")

    async def check(broker: MemoryBroker) -> None:
        for key in (KEY, CHILD):
            await broker.commands.send(key, commands.encode(commands.Start("id", 1.0)), 0)
        former = await host(broker)
        door = await broker.commands.send(grandchild, commands.encode(commands.Start("id", 1.0)), 0)  # the child's host alone knows of it
        elsewhere = Journal(broker, grandchild, (await load(broker, grandchild)).tree, door, Nonces())
        await elsewhere.append(elsewhere.tree.root, [ended("s1")])
        former.in_seen = await broker.commands.send(KEY, commands.encode(commands.Restart("id", 1.0)), 1)
        await former.append(former.tree.root, [ended("before")])
        await former.catch_up()
        await broker.records.put(KEY.tree, dumps({"v": 1, "tree": former.tree.dump()}), 0, "{}")
        await (await host(broker)).take_over()
        await elsewhere.append(elsewhere.tree.root, [ended("s2")])
        assert [envelopes.decode(entry.body).host for entry in await broker.log.read(grandchild)] == [elsewhere.nonce] * 2

    simulated(check)


@pytest.mark.parametrize("rest", [Rested("suspended", 1.0), Finished("success", 1.0)])
def test_a_log_that_aged_out_takes_nothing_of_a_former_host(rest: Fact) -> None:
    async def check(broker: MemoryBroker) -> None:
        former = await begun(broker)
        successor = await host(broker)
        await successor.take_over()
        await successor.append(successor.tree.root, [rest])
        await broker.records.put(KEY.tree, dumps({"v": 1, "tree": successor.tree.dump()}), 0, "{}")
        await asyncio.sleep(LOG_TTL_SECONDS + 1)
        for actor in (former.tree.root, former.tree.actor("c")):
            with pytest.raises(Fenced):
                await former.append(actor, [ended("s2")])
        await successor.append(successor.tree.root, [ended("after")])  # who rested it goes on with an empty log

    simulated(check)


def test_an_item_whose_resume_is_read_before_its_facts_has_its_input() -> None:
    async def check(broker: MemoryBroker) -> None:
        former = await begun(broker)
        successor = await host(broker)
        await former.append(former.tree.actor("c"), [StepEnded("s2", "success", 1.0, 2.0, output=[7])])
        await former.append(former.tree.actor("c.s3=0"), [StepSuspended("s3", 1.0, 2.0, leaf=True)])
        await broker.commands.send(KEY, commands.encode(commands.Resume("id", 1.0, [("c.s3=0", "s3")], 1)), 1)
        for entry in await broker.commands.read(KEY, 1):
            await successor.take_in(entry)
        await successor.catch_up()
        assert successor.tree.actor("c.s3=0").steps["s3"].input == 7

    simulated(check)


class DeafWire(Wire):
    """Renewals get lost on it, and nobody notices."""

    def send(self, name: str, operation: Callable[[], object]) -> None:
        if name != "renew":
            super().send(name, operation)


def test_who_lost_its_lease_unawares_begins_no_step_of_a_child_again() -> None:
    executions = Counter[str]()

    def counted(name: str, seconds: float) -> Step:
        @step(id=name)
        async def body(x: int, ctx: Context) -> int:
            executions[name] += 1
            await asyncio.sleep(seconds)
            return x + 1

        return body

    inner = Workflow("inner").then(counted("s1", 0.1)).then(counted("s2", 20.0)).then(counted("s3", 20.0)).commit()
    flow = Workflow("w").parallel([inner, counted("beside", 0.1)]).commit()

    async def main(loop: VirtualLoop) -> None:
        server = Server()
        loop.spawn(Process("deaf"), work(server, DeafWire))
        client = Noria(MemoryBroker(server, "noria"))
        running = asyncio.ensure_future(client.create_run(flow, "r").start(1))
        await asyncio.sleep(3)
        loop.spawn(Process("other"), work(server, Wire))
        result = await running
        assert result.status == "success"

    async def work(server: Server, wire: type[Wire]) -> None:
        async with Noria(MemoryBroker(server, "noria", wire())).worker(flow, lease=5.0):
            await asyncio.Future[None]()

    run(main, 0)
    assert executions == {"s1": 1, "beside": 1, "s2": 2, "s3": 1}


class MuteWire(DeafWire):
    """Records of runs that are active get lost on it as well."""

    def request(self, name: str, operation: Callable[[], T]) -> asyncio.Future[T]:
        return self.loop.create_future() if name == "record put" and self.loop.time() > 1 else super().request(name, operation)


def test_who_lost_its_lease_looks_at_the_whole_run_again() -> None:
    executions = Counter[str]()

    @step
    async def asks(x: int, ctx: Context) -> int:
        executions[f"{current_process().name} asks"] += 1
        return x if ctx.resume_data else ctx.suspend({})

    @step
    async def slow(x: int, ctx: Context) -> int:
        executions[current_process().name] += 1
        await asyncio.sleep(20)
        return x + 1

    flow = Workflow("w").then(asks).then(slow).commit()

    async def main(loop: VirtualLoop) -> None:
        server = Server()
        loop.spawn(Process("deaf"), work(server, MuteWire))
        run = Noria(MemoryBroker(server, "noria")).create_run(flow, "r")
        assert (await run.start(1)).status == "suspended"
        await asyncio.sleep(1)
        running = asyncio.ensure_future(run.resume(True))  # its first delivery, behind a record of a run that rests
        await asyncio.sleep(3)
        loop.spawn(Process("other"), work(server, Wire))
        assert (await running).status == "success"

    async def work(server: Server, wire: type[Wire]) -> None:
        async with Noria(MemoryBroker(server, "noria", wire())).worker(flow, lease=5.0):
            await asyncio.Future[None]()

    run(main, 0)
    assert executions == {"deaf asks": 2, "deaf": 1, "other": 1}


class SlowWire(DeafWire):
    """Commands take half a minute on it."""

    def request(self, name: str, operation: Callable[[], T]) -> asyncio.Future[T]:
        if name != "in append":
            return super().request(name, operation)
        answer: asyncio.Future[T] = self.loop.create_future()
        self.loop.call_later(30, perform, operation, answer)
        return answer


def test_a_former_hosts_resume_does_not_answer_the_next_question_of_a_spread_child() -> None:
    heard: list[Any] = []

    @step
    async def asks(x: int, ctx: Context) -> int:
        if ctx.resume_data is None:
            ctx.suspend("first")
        heard.append((ctx.suspend_data, ctx.resume_data))
        return x if ctx.suspend_data == "second" else ctx.suspend("second")

    flow = Workflow("w").parallel([asks], placement="spread").commit()

    async def main(loop: VirtualLoop) -> None:
        server = Server()
        first, slow = Process("first"), Process("slow")
        loop.spawn(first, work(server, Wire))
        run = Noria(MemoryBroker(server, "noria")).create_run(flow, "r")
        assert (await run.start(1)).status == "suspended"
        first.killed = True  # its deliveries are acknowledged
        loop.spawn(slow, work(server, SlowWire))
        running = asyncio.ensure_future(run.resume("one"))
        await asyncio.sleep(3)
        loop.spawn(Process("other"), work(server, Wire))
        assert [s.payload for s in (await running).suspended] == ["second"]
        await asyncio.sleep(60)  # what the slow one sent came long ago
        assert [s.payload for s in (await run.result()).suspended] == ["second"]
        assert (await run.resume("two")).status == "success"

    async def work(server: Server, wire: type[Wire]) -> None:
        async with Noria(MemoryBroker(server, "noria", wire())).worker(flow, lease=5.0):
            await asyncio.Future[None]()

    run(main, 0)
    assert heard == [("first", "one"), ("second", "two")]

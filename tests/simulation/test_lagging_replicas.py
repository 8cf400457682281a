"""Reads of different replicas in one loading of a run (found by tests/models/stale.py)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from noria.actor.journal import Journal
from noria.actor.load import load
from noria.contract import commands
from noria.contract.facts import Rested, StepEnded, TakenOver
from noria.errors import BrokerUnavailable
from noria.ids import Nonces
from noria.limits import MAX_AGE_SECONDS
from noria.ports import ActorKey, Stored
from noria.testing.loop import VirtualLoop, run
from noria.testing.memory import MemoryBroker
from noria.testing.server import Server

KEY = ActorKey("w", "r")


class Lagging:
    """Commands as a replica knows them that has not got the last one yet, for the next `reads` readings."""

    def __init__(self, commands: Any, reads: int) -> None:
        self._commands, self.reads = commands, reads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._commands, name)

    async def read_tree(self, actor: ActorKey, after: int = 0) -> list[Stored]:
        found: list[Stored] = await self._commands.read_tree(actor, after)
        self.reads -= 1
        return found[:-1] if self.reads >= 0 else found


async def consumed(broker: MemoryBroker) -> None:
    """A run that rested, was cancelled, and taken over by somebody whose first fact covers the cancel."""
    await broker.commands.send(KEY, commands.encode(commands.Start("id", 1.0)), 0)
    first = Journal(broker, KEY, (await load(broker, KEY)).tree, 1, Nonces())
    first.in_seen = 1
    await first.append(first.tree.root, [Rested("suspended", 1.0)])
    cancel = await broker.commands.send(KEY, commands.encode(commands.Cancel("id2", 2.0)))
    second = Journal(broker, KEY, (await load(broker, KEY)).tree, cancel, Nonces())
    second.in_seen = cancel
    await second.append(second.tree.root, [TakenOver(2.0)])


@pytest.mark.parametrize(("reads", "gives_up"), [(3, False), (1_000_000, True)])
def test_a_run_is_not_loaded_without_a_command_that_its_facts_name(reads: int, gives_up: bool) -> None:
    async def main(_: VirtualLoop) -> None:
        broker = MemoryBroker(Server(), "noria")
        await consumed(broker)
        broker.commands = Lagging(broker.commands, reads)
        if gives_up:
            with pytest.raises(BrokerUnavailable, match="lags behind"):
                await load(broker, KEY)
        else:
            assert (await load(broker, KEY)).tree.cancel

    run(main, 0)


def test_a_run_is_not_loaded_without_a_command_by_which_a_child_elsewhere_goes_on() -> None:
    async def main(_: VirtualLoop) -> None:
        broker, child = MemoryBroker(Server(), "noria"), ActorKey("w", "r", "c")
        await broker.commands.send(KEY, commands.encode(commands.Start("id", 1.0)), 0)
        door = await broker.commands.send(child, commands.encode(commands.Start("id2", 1.0)), 0)
        elsewhere = Journal(broker, child, (await load(broker, child)).tree, door, Nonces())
        await elsewhere.append(elsewhere.tree.actor("c.inside"), [StepEnded("s", "success", 1.0, 2.0)])
        broker.commands = Lagging(broker.commands, 2)
        assert (await load(broker, KEY)).tree.actor("c").started == door

    run(main, 0)


def test_commands_that_aged_out_are_not_waited_for() -> None:
    async def main(_: VirtualLoop) -> None:
        broker = MemoryBroker(Server(log_seconds=2 * MAX_AGE_SECONDS), "noria")
        await consumed(broker)
        await asyncio.sleep(MAX_AGE_SECONDS + 1)
        loaded = await load(broker, KEY)
        assert loaded.tree.root.in_seen and not loaded.tree.cancel

    run(main, 0)

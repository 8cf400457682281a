"""Rules of the engine and of the broker, each left out in turn in the running code: `python -m tests.simulation.mutations`.

A rule that can be left out without a world that breaks would be one that nobody needs, or that nobody checks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from noria.actor import attending, children, endings, hosting, load, perform, resting, sleeping, spread, travel
from noria.actor.activation import Activation
from noria.actor.children import _Fanout
from noria.actor.journal import Journal
from noria.actor.spread import Spread
from noria.contract import commands
from noria.contract.facts import Fact, FactMessage, Finished
from noria.contract.rewinds import Rewound
from noria.contract.values import dumps, loads
from noria.machine import decide
from noria.machine.fold import fold_command, fold_message
from noria.machine.lease import Verdict, judge
from noria.machine.state import ENDED, Actor, Tree, segment
from noria.ports import ActorKey, Broker
from noria.testing.server import Server
from noria.workflow.builder import Workflow
from tests.simulation.many import attempt, kept

Patch = tuple[Any, str, Any]
SEEDS = 250  # a mutation that none of so many worlds catches has got away


def no_compare_and_set(kind: str) -> list[Patch]:
    append = Server.append

    def mutated(server: Server, of: str, actor: ActorKey, body: bytes, expected: int | None) -> int:
        return append(server, of, actor, body, None if of == kind else expected)

    return [(Server, "append", mutated)]


def judged(change: Callable[[Verdict], Verdict]) -> list[Patch]:
    def mutated(tree: Tree, sequence: int, hosted_as: str | None = None) -> Verdict:
        return change(judge(tree, sequence, hosted_as))

    return [(attending, "judge", mutated)]


def door_acknowledged_early() -> list[Patch]:
    run = hosting._run

    async def mutated(body: Activation) -> None:
        body.delivery.ack()
        await run(body)

    return [(hosting, "_run", mutated)]


def parent_rests_too_early() -> list[Patch]:
    collect = _Fanout._collect

    def mutated(fanout: _Fanout) -> bool:
        news = collect(fanout)
        for child in [fanout.child(seg) for seg in sorted(fanout.remote)]:
            if child.started and child.status not in ENDED:
                fanout._rest(segment(child.path), "suspended")
        return news

    return [(_Fanout, "_collect", mutated)]


def news_without_reading() -> list[Patch]:
    async def mutated(body: Activation, *_: Any) -> None:
        for entry in await body.broker.commands.read(body.key, body.journal.in_seen):
            await body.journal.take_in(entry)
            body.journal.in_seen = entry.sequence
        for hear in body.after_look:
            hear()

    return [(hosting, "_look", mutated)]


async def _nothing(*_: Any, **__: Any) -> None:
    return None


def record_before_fact() -> list[Patch]:
    append = Journal.append

    async def mutated(journal: Journal, actor: Actor, facts: list[Fact]) -> None:
        if actor.path == "" and isinstance(facts[-1], Finished):
            foreseen = Tree.of(loads(dumps(journal.tree.dump())))
            fold_message(foreseen, actor.last + 1000, "", FactMessage(facts, journal.in_seen, journal.door, journal.nonce, "x"))
            stored = await journal.broker.records.get(journal.key.tree)
            await journal.broker.records.put(
                journal.key.tree, dumps({"v": 1, "tree": foreseen.dump()}), stored.revision if stored is not None else 0, "{}"
            )
        await append(journal, actor, facts)

    return [(Journal, "append", mutated)]


def in_seen_ignored() -> list[Patch]:
    return [(Journal, "in_seen", property(lambda _: 0, lambda _, __: None))]


def refusal_ignored() -> list[Patch]:
    refused = Journal._refused

    async def mutated(journal: Journal, actor: Actor, message: FactMessage, body: bytes, expected: int) -> None:
        if actor.path != journal.key.path:
            return await refused(journal, actor, message, body, expected)
        last = await journal.broker.log.last(journal.key_of(actor))
        sequence = await journal.broker.log.append(journal.key_of(actor), body, last.sequence if last is not None else 0)
        return fold_message(journal.tree, sequence, actor.path, message)

    return [(Journal, "_refused", mutated)]


def child_without_its_record() -> list[Patch]:
    read = load.load

    class Blind:
        """A broker that has no records."""

        def __init__(self, broker: Broker) -> None:
            self._broker, self.records = broker, self
            self.get = _nothing

        def __getattr__(self, name: str) -> Any:
            return getattr(self._broker, name)

    async def mutated(broker: Any, key: ActorKey, *more: Any) -> Any:
        return await read(Blind(broker) if key.path else broker, key, *more)

    return [(attending, "load", mutated)]


def travel_reads_beyond_its_step() -> list[Patch]:
    carry_out = travel.rewound

    def mutated(workflow: Workflow, tree: Tree, *rest: Any) -> Rewound:
        fact = carry_out(workflow, tree, *rest)
        fact.rewinds[0].keep += [unit for unit, record in tree.root.steps.items() if record.status == "success"]
        return fact

    return [(travel, "rewound", mutated)]


def fork_reads_beyond_its_step() -> list[Patch]:
    ((place, rule, beyond),) = travel_reads_beyond_its_step()
    whole = vars(place)[rule]
    return [(place, rule, lambda workflow, tree, n, command, now: (beyond if command.origin else whole)(workflow, tree, n, command, now))]


def child_goes_on() -> list[Patch]:
    repeated = Spread._repeated

    async def mutated(children: Spread, targets: list[tuple[str, str]], data: Any) -> commands.Resume:
        word = await repeated(children, targets, data)
        word.per_step = False
        return word

    return [(Spread, "_repeated", mutated)]


async def _believed(*_: Any) -> bool:
    return True


MUTATIONS: dict[str, Callable[[], list[Patch]]] = {
    "no compare-and-set on facts": lambda: no_compare_and_set("run"),
    "no compare-and-set on commands": lambda: no_compare_and_set("in"),
    "acknowledge a command that is not consumed": lambda: judged(lambda v: "ack" if v == "wait" else v),
    "acknowledge the door before the resting fact": door_acknowledged_early,
    "host any command": lambda: judged(lambda v: "host" if v in ("wait", "ack") else v),
    "host what was consumed": lambda: judged(lambda v: "host" if v == "ack" else v),
    "wait where the rules say host": lambda: judged(lambda v: "wait" if v == "host" else v),
    "let a parent rest while a child is active": parent_rests_too_early,
    "take news for read": news_without_reading,
    "skip taken-over": lambda: [(Journal, "take_over", _nothing)],
    "record before fact": record_before_fact,
    "no record at rest": lambda: [(resting, "save", _nothing)],
    "ignore in_seen": in_seen_ignored,
    "write on after a refusal": refusal_ignored,
    "no timer": lambda: [(room, "set_timer", _nothing) for room in (perform, sleeping)],
    "a timer that came too early is not set again": lambda: [(sleeping, "rearm", _nothing)],
    "a spread child begins with its own log only": child_without_its_record,
    "resumes and timers are not passed down": lambda: [(Spread, "pass_down", _no)],
    "what a spread child is sent is not a compare-and-set": lambda: [(Spread, "_send", _send_blindly)],
    "record again what a former host recorded": lambda: [(Journal, "_adopt", lambda *_: None)],
    "trust a stale read": lambda: [(attending, "_is_confirmed", _believed)],
    "time travel reads beyond its step": travel_reads_beyond_its_step,
    "fork reads beyond its step": fork_reads_beyond_its_step,
    "step by step goes on": lambda: [(place, "is_paused", lambda _: False) for place in (decide, children, spread)],
    "step by step pauses at once": lambda: [(place, "is_paused", lambda tree: bool(tree.per_step)) for place in (decide, children, spread)],
    "a child elsewhere is not told of one step": child_goes_on,
    "step by step nobody looks who goes on elsewhere": lambda: [(_Fanout, "_goes_on_elsewhere", lambda *_: False)],
    "a nested workflow is not tried again": lambda: [(place, "retried", lambda *_: None) for place in (decide, children)],
    "what comes for an earlier life counts": lambda: [(Tree, "is_over", lambda *_: False)],
    "a cancel stays where it came": lambda: [(endings, "_stop_elsewhere", _stop_nobody)],
}


async def _stop_nobody(*_: Any) -> bytes:
    return b"{}"


async def _no(*_: Any) -> bool:
    return False


async def _send_blindly(children: Spread, child: Actor, command: commands.Command) -> bool:
    activation = children.activation
    sequence = await activation.broker.commands.send(activation.journal.key_of(child), commands.encode(command))
    fold_command(activation.tree, sequence, child.path, command)
    return True


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """The code without one of its rules."""
    patches = [(place, rule, vars(place).get(rule), instead) for place, rule, instead in MUTATIONS[name]()]
    for place, rule, _, instead in patches:
        setattr(place, rule, instead)
    try:
        yield
    finally:
        for place, rule, whole, _ in patches:
            if whole is None:
                delattr(place, rule)
            else:
                setattr(place, rule, whole)


def hunt(name: str) -> tuple[str, str]:
    """(mutation, the first violation that shows it); empty: it got away."""
    with mutated(name):
        for seed in [*kept(), *range(SEEDS)]:
            why = attempt(seed)[1]
            if why:
                return name, why.splitlines()[0]
    return name, ""


def hunt_all() -> Iterator[tuple[str, str]]:
    """Every mutation with what caught it."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        yield from pool.map(hunt, MUTATIONS)


if __name__ == "__main__":
    free = 0
    for found, why in hunt_all():
        free += not why
        print(f"{'caught' if why else 'GOT AWAY':9} {found}: {why[:160]}", flush=True)
    sys.exit(1 if free else 0)

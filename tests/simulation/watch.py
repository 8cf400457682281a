"""What must hold at every moment: checked with each message that is stored, each record put, each acknowledgement."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import Any, NamedTuple

from noria.contract import commands, envelopes
from noria.contract.commands import Resume, Start, TimeTravel
from noria.contract.facts import Fact, FactMessage, Finished, HandedOver, StepEnded, StepSuspended, TakenOver
from noria.contract.rewinds import Rewound
from noria.contract.values import dumps, loads
from noria.limits import POISON_TAKEOVERS
from noria.machine.decide import is_paused
from noria.machine.fold import fold_command, fold_message
from noria.machine.state import ENDED, RESTING, Actor, Tree, parent
from noria.machine.view import child_status, view
from noria.ports import ActorKey, RunKey, Stored
from noria.testing.consumers import Consumer
from noria.testing.server import Server

SHOWN = ("steps", "state", "request_context", "result", "error", "tripwire", "input")


class Violation(AssertionError):
    """A guarantee is broken."""


class Rested(NamedTuple):
    """A resting fact of a root, by which door, and what had been seen before it."""

    fact: int
    door: int
    seen_before: int


class Rewind(NamedTuple):
    """A time travel that took effect: its fact, its command."""

    fact: int
    command: int
    travel: TimeTravel


class Watch:
    """Folds every run in stream order as an omniscient reader. The first `violation` is kept."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.violation: str | None = None
        self.facts = 0
        self.trees: dict[RunKey, Tree] = {}
        self.history: dict[RunKey, list[Stored]] = {}
        self.commands: dict[ActorKey, set[int]] = {}
        self.sent: dict[int, TimeTravel] = {}
        self.unhindered: set[RunKey] = set()  # runs that may go on by a word that did not ask for one step only
        self.rewinds: dict[RunKey, list[Rewind]] = {}
        self.starts: Counter[ActorKey] = Counter()
        self.ended: Counter[tuple[RunKey, str, str, int]] = Counter()  # results by (run, path, step, round)
        self.seen: dict[ActorKey, int] = {}  # in_seen of each chain
        self.over: set[ActorKey] = set()  # actors that ended
        self.rested: dict[RunKey, Rested] = {}  # the root's last rest
        self.recorded: dict[RunKey, int] = {}  # the root's last fact in the record
        self.takeovers: Counter[ActorKey] = Counter()  # of each chain, since anything else was recorded at or below it,
        self.handed: set[ActorKey] = set()  # but those after a host that said it leaves
        server.watchers.append(self.stored)
        put, consumer = server.put_record, server.consumer
        server.put_record = lambda run, body, *rest: (put(run, body, *rest), self.put(run, body))[0]  # type: ignore[method-assign]

        def watched(workflow: str, lease_seconds: float) -> Consumer:
            known = workflow in server.consumers
            found = consumer(workflow, lease_seconds)
            if not known:
                ack = found.ack
                found.ack = lambda sequence: (self.acknowledged(found, sequence), ack(sequence))[1]  # type: ignore[method-assign]
            return found

        server.consumer = watched  # type: ignore[method-assign]

    def fail(self, text: str) -> None:
        self.violation = self.violation or text

    def tree(self, run: RunKey) -> Tree:
        return self.trees.setdefault(run, Tree())

    # What is stored ---------------------------------------------------------------------------------------------

    def stored(self, entry: Stored) -> None:
        try:
            self._stored(entry)
        except Exception as error:  # the server would take it for its own
            self.fail(f"{entry} cannot be read: {error!r}")

    def _stored(self, entry: Stored) -> None:
        run, path = entry.actor.tree, entry.actor.path
        tree = self.tree(run)
        if entry.kind == "in":
            entry = self._unpacked(entry)
            command = commands.decode(entry.body)
            self.history.setdefault(run, []).append(entry)
            self.commands.setdefault(entry.actor, set()).add(entry.sequence)
            if isinstance(command, TimeTravel):
                self.sent[entry.sequence] = command
            if isinstance(command, (Start, Resume, TimeTravel)) and not path:
                self._hindered(run, tree, command.per_step)
            if isinstance(command, Start):
                self.starts[entry.actor] += 1
                if self.starts[entry.actor] > 1:
                    self.fail(f"{entry.actor} is started a second time, at {entry.sequence}")
            fold_command(tree, entry.sequence, path, command)
        elif entry.kind == "run":
            entry = self._unpacked(entry)
            self.history.setdefault(run, []).append(entry)
            message = envelopes.decode(entry.body)
            self.facts += 1
            self._may_write(entry, tree, message)
            self._count_takeovers(entry.actor, message)
            for fact in message.facts:
                if isinstance(fact, Rewound):
                    self._rewound(run, entry.sequence, fact)
            fold_message(tree, entry.sequence, path, message)
            before = self.seen.get(entry.actor, 0)
            self.seen[entry.actor] = max(self.seen.get(entry.actor, 0), message.in_seen)
            if _ends(message):
                self.over.add(entry.actor)
            self._follows(entry, tree, message, before)

    def _hindered(self, run: RunKey, tree: Tree, per_step: bool) -> None:
        """A word to go on, which binds whoever hosts by it; what goes on elsewhere may end a step by the word before."""
        elsewhere = any(path for _, path in tree.pending) or any(a.started and a.status not in RESTING for a in tree.below(""))
        if not per_step or elsewhere:
            self.unhindered.add(run)
        elif tree.root.status in RESTING and not tree.pending:
            self.unhindered.discard(run)

    def _unpacked(self, entry: Stored) -> Stored:
        return entry._replace(body=self._body(entry.actor.tree, entry.body))

    def _body(self, run: RunKey, body: bytes) -> bytes:
        """What a parcel's slip stands for."""
        return self.server.blobs[run, loads(body)["noria_blob"]] if body.startswith(b'{"noria_blob"') else body

    def _rewound(self, run: RunKey, sequence: int, fact: Rewound) -> None:
        """The run goes on in other lives: what was recorded before may be recorded again."""
        self.rewinds.setdefault(run, []).append(Rewind(sequence, fact.command, self.sent[fact.command]))
        self.over.discard(ActorKey(*run))
        for place in [place for place in self.ended if place[0] == run]:
            del self.ended[place]

    def left_over(self) -> list[ActorKey]:
        """Children that live elsewhere and go on though their run was canceled; of a life that is over they rest for ever."""
        canceled = {run for run, tree in self.trees.items() if tree.root.status == "canceled" and run not in self.rewinds}
        left = [actor for actor in self.starts if actor.path and actor.tree in canceled and actor in self.seen and actor not in self.over]
        return [actor for actor in left if not self.trees[actor.tree].is_over(actor.path)]

    def _count_takeovers(self, key: ActorKey, message: FactMessage) -> None:
        for fact in message.facts:
            match fact:
                case HandedOver():
                    self.handed.add(key)
                case TakenOver() if key in self.commands:  # not in place: whoever hosts it counts
                    self.takeovers[key] += key not in self.handed
                    self.handed.discard(key)
                case TakenOver():
                    pass
                case _:
                    for path in _above(key.path):
                        self.takeovers.pop(ActorKey(*key.tree, path), None)
                        self.handed.discard(ActorKey(*key.tree, path))

    def is_near_poison(self) -> bool:
        """Whether a run has lost so many hosts in a row that one or two more have it given up, as they must: the engine cannot
        know that none of them died of it."""
        return any(count >= POISON_TAKEOVERS - 1 for count in self.takeovers.values())

    def _may_write(self, entry: Stored, tree: Tree, message: FactMessage) -> None:
        actor = tree.actors.get(entry.actor.path) or Actor(entry.actor.path)  # of a life that is over the tree keeps nothing
        who = f"fact {entry.sequence} of {entry.actor}"
        hosts = [ActorKey(*entry.actor.tree, p) for p in _above(entry.actor.path)]
        if not any(message.door in self.commands.get(host, ()) for host in hosts):
            self.fail(f"{who} has no door: {message.door}")
        own = self.commands.get(entry.actor, set())
        if own and message.in_seen and message.in_seen < actor.in_seen:
            self.fail(f"{who}: in_seen went back from {actor.in_seen} to {message.in_seen}")
        if own and message.in_seen and message.in_seen not in own:
            self.fail(f"{who}: in_seen {message.in_seen} is no command of its actor")
        if entry.actor.path == "" and actor.status in RESTING and message.door <= actor.in_seen and message.door != actor.door:
            self.fail(f"{who}: its door {message.door} was consumed before")
        successor = actor.status == "active" and actor.last and message.host != actor.host
        if entry.actor.path == "" and successor and not any(isinstance(fact, TakenOver) for fact in message.facts):
            self.fail(f"{who}: {message.host} goes on where {actor.host} was, without having taken over")
        if entry.actor.path == "" and actor.status in ENDED and not any(isinstance(fact, Rewound) for fact in message.facts):
            self.fail(f"{who}: it ended at {actor.last}")
        stepwise = entry.actor.tree not in self.unhindered and not tree.cancel
        if stepwise and 0 < tree.per_step < tree.leaf_done and any(_is_step(fact) for fact in message.facts):
            self.fail(f"{who}: it ends a second step since the command {tree.per_step}, which asked for one")

    def _follows(self, entry: Stored, tree: Tree, message: FactMessage, seen: int) -> None:
        run, path, root = entry.actor.tree, entry.actor.path, tree.root
        for fact in message.facts:
            if isinstance(fact, StepEnded):
                key = (run, path, fact.step, fact.round)
                self.ended[key] += 1
                if self.ended[key] > 1:
                    self.fail(f"step {fact.step!r} round {fact.round} of {entry.actor} has {self.ended[key]} results")
        if path == "" and root.status == "paused" and message.in_seen >= tree.newest_command and not is_paused(tree):
            self.fail(f"{entry.actor} pauses at {entry.sequence}, but no step ended since the word {tree.per_step} to go on")
        if path == "" and root.status in RESTING:
            self.rested[run] = Rested(entry.sequence, message.door, seen)
            busy = [a.path for a in tree.below("") if a.last and a.status == "active" and self._is_busy(run, tree, a)]
            busy += [p for _, p in tree.pending if p and p in tree.actors and tree.actors[p].status not in ENDED]  # by what is on its way to them
            if busy and root.status not in ENDED:
                self.fail(f"{entry.actor} rests ({root.status}) at {entry.sequence} while children are active, or about to be: {busy}")
            self._refold(run, tree)

    def _is_busy(self, run: RunKey, tree: Tree, child: Actor) -> bool:
        """Whether an active child goes on. One with a host of its own says so when it rests. Step by step those in place that
        began wait for their turn: once a step ended, or while a sibling of theirs that has it waits for a timer."""
        if ActorKey(*run, child.path) in self.starts:
            return True
        if child_status(tree, child) != "running" or tree.root.in_seen < tree.newest_command:  # by a word that its host does not know yet
            return False
        return not tree.per_step or (tree.leaf_done <= tree.per_step and not any(_waits_beside(tree, path) for path in _above(child.path)[1:]))

    def _refold(self, run: RunKey, tree: Tree) -> None:
        again = self.folded(run)
        if self._shown(again, run) != self._shown(tree, run):
            self.fail(f"{run}: commands and facts do not commute: {_difference(self._shown(again, run), self._shown(tree, run))}")

    def folded(self, run: RunKey, before: float = inf) -> Tree:
        """What is stored of a run before a sequence, as late as a host may hear of it: the start, then what hosts write, then
        all other commands."""
        again = Tree()
        for entry in sorted(self.history[run], key=lambda e: (self._life(e), _place(e), e.sequence)):
            if entry.sequence >= before:
                continue
            if entry.kind == "in":
                fold_command(again, entry.sequence, entry.actor.path, commands.decode(entry.body))
            else:
                fold_message(again, entry.sequence, entry.actor.path, envelopes.decode(entry.body))
        return again

    def _life(self, entry: Stored) -> int:
        """After how many time travels it came: who hosts one has read all commands before."""
        if entry.kind == "in":
            return sum(r.command < entry.sequence for r in self.rewinds.get(entry.actor.tree, ()))
        return sum(r.fact <= entry.sequence for r in self.rewinds.get(entry.actor.tree, ()))

    def _shown(self, tree: Tree, run: RunKey) -> dict[str, Any]:
        return {k: v for k, v in loads(dumps(view(tree, *run, nested=True))).items() if k in SHOWN}

    # Records and acknowledgements -------------------------------------------------------------------------------

    def put(self, run: RunKey, body: bytes) -> None:
        body = self._body(run, body)
        if b'"tree"' not in body[:64]:
            return
        record, tree = Tree.of(loads(body)["tree"]), self.tree(run)
        self.recorded[run] = record.root.last
        if record.root.last > tree.root.last:
            self.fail(f"the record of {run} is newer than its log: {record.root.last} > {tree.root.last}")
        quiet = not any(s > record.root.in_seen for s in self.commands.get(ActorKey(*run), ()))
        # a cancel does not wait for children that live elsewhere
        if record.root.last == tree.root.last and tree.root.status in RESTING - {"canceled"} and quiet:
            mine, yours = self._shown(record, run), self._shown(tree, run)
            if mine != yours:
                self.fail(f"the record of {run} is not what its log says: {_difference(mine, yours)}")

    def acknowledged(self, consumer: Consumer, sequence: int) -> None:
        entry = self.server.messages.get(sequence)
        if entry is None or sequence not in consumer.pending:
            return
        tree = self.tree(entry.actor.tree)
        if entry.actor.path and ActorKey(*entry.actor.tree) in self.over:
            return
        if self.seen.get(entry.actor, 0) < sequence and entry.actor not in self.over:
            self.fail(f"command {sequence} of {entry.actor} is acknowledged, consumed is {self.seen.get(entry.actor, 0)}")
        actor = tree.actors.get(entry.actor.path)
        if actor is not None and actor.status == "active" and actor.door == sequence:
            self.fail(f"the door {sequence} of {entry.actor} is acknowledged while it is hosted by it")
        rest = self.rested.get(entry.actor.tree)
        if entry.actor.path or rest is None or rest.fact != tree.root.last or tree.root.status not in RESTING:
            return
        if (sequence == rest.door or sequence > rest.seen_before) and self.recorded.get(entry.actor.tree, 0) < rest.fact:
            self.fail(f"command {sequence} of {entry.actor} is acknowledged before the record of the fact {rest.fact}")


def _ends(message: FactMessage) -> bool:
    last = message.facts[-1]
    return isinstance(last, Finished) or (isinstance(last, StepEnded) and last.leaf)


def _is_step(fact: Fact) -> bool:
    return isinstance(fact, StepSuspended) or (isinstance(fact, StepEnded) and fact.counts and fact.status != "canceled")


def _place(entry: Stored) -> int:
    is_start = entry.kind == "in" and b'"kind":"start"' in entry.body
    return 1 if entry.kind == "run" or (is_start and entry.actor.path) else 0 if is_start else 2


def _above(path: str) -> list[str]:
    parts = path.split(".") if path else []
    return [".".join(parts[:n]) for n in range(len(parts) + 1)]


def _waits_beside(tree: Tree, path: str) -> bool:
    """Whether an actor or a sibling of it waits for a timer."""
    siblings = [a for a in tree.actors.values() if a.path and parent(a.path) == parent(path)]
    return any(child_status(tree, a) == "waiting" for a in siblings)


def _difference(mine: Any, yours: Any, place: str = "") -> str:
    """The first place where two JSON values differ."""
    if isinstance(mine, dict) and isinstance(yours, dict):
        for key in {**mine, **yours}:
            if mine.get(key) != yours.get(key):
                return _difference(mine.get(key), yours.get(key), f"{place}/{key}")
    return f"{place}: {mine} is not {yours}"

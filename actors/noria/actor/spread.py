"""Children that live elsewhere: how each is begun, and how what came for it gets to it."""

from __future__ import annotations

from typing import Any

from noria.actor import parcels
from noria.actor.activation import Activation
from noria.clock import now
from noria.contract import commands
from noria.machine.decide import is_paused, resumed, waits
from noria.machine.fold import fold_command
from noria.machine.state import ENDED, Actor, segment, split
from noria.ports import Refused
from noria.workflow.builder import Workflow
from noria.workflow.steps import Step


class Spread:
    """The children of one actor as their parent's host tells them what to do. Everything from outside reaches the root; it is
    handed down to them by commands."""

    def __init__(self, activation: Activation, actor: Actor) -> None:
        self.activation, self.actor = activation, actor
        self.passed: set[tuple[str, float]] = set()  # timers
        self.sent = {path: sequence for sequence, path in activation.tree.pending}  # the last command to each

    async def store_input(self) -> None:
        """A child elsewhere reads what this workflow was given: what its type made of it is stored before."""
        journal = self.activation.journal
        if self.actor.path and journal.opening.get(self.actor.path):
            await self.activation.record(self.actor, [])

    async def start(self, child: Actor) -> None:
        """Give the child a host of its own, by a command."""
        activation, tree = self.activation, self.activation.tree
        told = await activation.teller.tell(tree)
        start = commands.Start(
            activation.journal.nonces.next(), now(), child.input, tree.resource_id, told.state, told.context,
            version=tree.version, traceparent=activation.journal.traceparent, member=child.member, travelled=tree.travelled,
            shared=told.shared,
        )  # fmt: skip
        await self._send(child, start)

    async def pass_down(self, child: Actor) -> bool:
        """Hand what reached the root on to a child that lives elsewhere: resumes, timers, the word to go on; False: there is nothing."""
        passed = False
        while self.is_held(child) and not self.has_command(child):
            await self._send(child, await self._repeated([], None))
            passed = True
        for member in self.members(child):
            for step in list(member.steps):  # facts may come meanwhile
                while (resume := self.new_resume(member, step)) is not None:
                    await self._send(child, await self._repeated([(member.path, step)], resume[1]))
                    passed = True
            for name, until in waits(member):
                passed = await self._pass_timer(child, commands.TimerFired("", now(), member.path, name, until)) or passed
        return passed

    async def _pass_timer(self, child: Actor, timer: commands.TimerFired) -> bool:
        """Hand on a timer that is due; step by step it waits for its turn. A timer carries no state and no word to go on: where the
        child lacks them a resume goes before it."""
        tree, known = self.activation.tree, (timer.path, timer.until)
        if tree.fired.get(timer.path, 0.0) < timer.until or known in self.passed or is_paused(tree):
            return False
        while known not in self.passed:
            written = [entry[0] for register in (tree.state, tree.context) for entry in register.values()]
            if self._last_command(child) < max(tree.per_step, *written, 0):
                await self._send(child, await self._repeated([], None))
                continue
            timer.id = self.activation.journal.nonces.next()
            if await self._send(child, timer):
                self.passed.add(known)
        return True

    async def _send(self, child: Actor, command: commands.Command) -> bool:
        """A compare-and-set on what the child was sent before, so that of two hosts one sends. False: what the other one
        sent is read now, and decides anew. Raises Refused when neither is known."""
        activation, known = self.activation, self._last_command(child)
        key, port = activation.journal.key_of(child), activation.broker.commands
        body = await parcels.pack(activation.broker, key.tree, commands.encode(command))
        try:
            sequence = await port.send(key, body, known)
        except Refused:
            others = await port.read(key, known)
            for entry in others:
                await activation.journal.take_in(entry)
                self.sent[child.path] = entry.sequence
            if others:
                return False
            sequence = await port.send(key, body, 0)  # what was sent before aged out
        fold_command(activation.tree, sequence, child.path, command)
        self.sent[child.path] = sequence
        return True

    def _last_command(self, child: Actor) -> int:
        return max(self.sent.get(child.path, 0), child.in_seen)

    async def _repeated(self, targets: list[tuple[str, str]], data: Any) -> commands.Resume:
        """A resume for a child that knows of state and request context only what it was told and did itself."""
        tree, told = self.activation.tree, await self.activation.teller.tell(self.activation.tree)
        id = self.activation.journal.nonces.next()
        return commands.Resume(id, now(), targets, data, told.context, bool(tree.per_step), told.state, shared=told.shared)

    def is_held(self, child: Actor) -> bool:
        """Whether a child stopped after the one step that it was asked for, while its run may go on."""
        return child.status == "paused" and not is_paused(self.activation.tree)

    def has_command(self, child: Actor) -> bool:
        """Whether something is on its way to a child, which will go on by it unless it ended meanwhile."""
        pending = self.activation.tree.pending
        return child.status not in ENDED and any(path == child.path and s > child.in_seen for s, path in pending)

    def has_news(self, member: Actor) -> bool:
        """Whether there came for an actor, wherever it lives, what it waits for."""
        due = self.activation.tree.fired.get(member.path, 0.0)
        return any(self.new_resume(member, step) for step in member.steps) or any(due >= until for _, until in waits(member))

    def new_resume(self, member: Actor, step: str) -> list[Any] | None:
        """The resume that came for a suspended step, unless it is one that was passed down already."""
        resume = resumed(member, step) if member.steps[step].status == "suspended" else None
        return resume if resume is not None and resume[2] == self.activation.key.path else None

    def members(self, child: Actor) -> list[Actor]:
        """A child and all below it; nothing is below a step."""
        unit = self.activation.places.unit(self.actor.path)
        assert isinstance(unit, Workflow)
        if isinstance(unit.units[split(segment(child.path))[0]], Step):
            return [child]
        return [child, *self.activation.tree.below(child.path)]

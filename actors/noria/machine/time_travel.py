"""What a time travel makes of a tree: which records stay, which are assumed, which places live again."""

from __future__ import annotations

from typing import Any, assert_never

from noria.contract.commands import TimeTravel
from noria.contract.rewinds import Assumed, Held, Rewind, Rewound
from noria.contract.values import as_dict, as_list
from noria.errors import GraphMismatch
from noria.machine.decide import waits
from noria.machine.state import ENDED, Actor, StepRecord, Tree, join, looped, place, segment
from noria.workflow import builder, steps
from noria.workflow.entries import BranchEntry, Entry, ForeachEntry, LoopEntry, MapEntry, ParallelEntry, SleepEntry, ThenEntry, Unit


def rewound(workflow: builder.Workflow, tree: Tree, sequence: int, command: TimeTravel, now: float) -> Rewound:
    """The fact that carries out the command at `sequence`. Raises GraphMismatch when the graph has no such target."""
    plan = _Plan(tree, command, now)
    plan.level(workflow, tree.base, tree.base, tuple(command.target), "", plan.known(tree.root if command.origin or plan.ran else None))
    held = _held(tree, plan) if command.resume is not None else {}
    return Rewound(sequence, now, plan.rewinds, held, command.resume)


def _held(tree: Tree, plan: _Plan) -> dict[str, Held]:
    """Every suspended step gets the data when it is reached; not what stays and waits as before, nor what is passed. So does
    the target, unless the data can only be for another: it never suspended, and one that did is reached."""
    found: dict[str, Held] = {}
    targets, target_suspends = dict.fromkeys(plan.targets, Held()), False
    for actor in tree.actors.values():
        stays = any(f"{actor.path}.".startswith(f"{path}.") for path in plan.staying)
        for step, record in actor.steps.items():
            where = place(actor.path, step)
            target_suspends = target_suspends or (where in targets and (record.resumed or record.suspended_at is not None))
            if record.status == "suspended" and not stays and not _is_within(where, plan.passed):
                found[where] = Held(record.suspend_payload, record.suspended_at)
    return {**targets, **found} if target_suspends or not found else found


def _is_within(where: str, places: list[str]) -> bool:
    return any(where == p or where.startswith((f"{p}.", f"{p}=")) for p in places)


class _Plan:
    """Walks down to the target; one Rewind for each actor on the way, the root first."""

    def __init__(self, tree: Tree, command: TimeTravel, now: float) -> None:
        self.tree, self.command, self.now = tree, command, now
        self.ran = tree.root.last > 0  # else nothing of it ever lived under its paths
        self.rewinds: list[Rewind] = []
        self.targets: list[str] = []  # the places at which the target's step may be: a foreach has many
        self.staying: list[str] = []  # paths of the target's siblings that go on
        self.passed: list[str] = []  # places of what counts as done

    @staticmethod
    def known(stored: Actor | None) -> list[Any]:
        """What is known of a workflow's input: it, or nothing."""
        return [] if stored is None else [stored.input]

    def level(self, workflow: builder.Workflow, was: str, path: str, target: tuple[str, ...], prefix: str, known: list[Any]) -> None:
        stored = self.tree.actors.get(was) or Actor(was)
        index, deeper = _index(workflow, target[0]), len(target) > 1
        given = None if deeper else self.command.input
        level = _Level(self, workflow, stored, prefix, Rewind(path, was))
        level.begin(known, given if index == 0 else None)
        self.rewinds.append(level.rewind)
        for n, entry in enumerate(workflow.entries[:index]):
            self.passed += [place(was, unit) for unit in _units(entry)]
            level.over(entry, given if n == index - 1 else None)
        if given is not None:
            level.rewind.prev = given
        level.aim(workflow.entries[index], target)
        level.forget(workflow.entries[index:])
        if deeper:
            self._below(level, workflow.entries[index], target)
            return
        self.targets = [*self.targets, place(path, target[0]), *(place(join(path, stem), target[0]) for stem in level.again)]

    def _below(self, level: _Level, entry: Entry, target: tuple[str, ...]) -> None:
        name, unit = target[0], level.workflow.units.get(target[0])
        if not isinstance(unit, builder.Workflow):
            raise GraphMismatch(f"step {level.prefix + name!r} has no steps of its own")
        rewind, stored = level.rewind, level.stored
        stay = {seg.partition("@")[0] for seg in rewind.items}
        stems = sorted(_items(stored, name) - stay) if isinstance(entry, ForeachEntry) else [name]
        for stem in stems:
            was = join(rewind.was, stored.seg(stem))
            path = join(rewind.path, looped(stem, max(rewind.lives.get(stem, 1), rewind.lives.get(name, 1))))
            said = level.given(name) or {}
            known = [said["input"]] if "input" in said else self.known(self.tree.actors.get(was)) or [rewind.prev]
            self.level(unit, was, path, target[1:], f"{level.prefix}{name}.", known)
        if name not in rewind.order:
            rewind.order.append(name)


class _Level:
    """One workflow on the way: what is before the target, the target's own entry, what comes after."""

    def __init__(self, plan: _Plan, workflow: builder.Workflow, stored: Actor, prefix: str, rewind: Rewind) -> None:
        self.plan, self.workflow, self.stored, self.prefix, self.rewind = plan, workflow, stored, prefix, rewind
        self.again: list[str] = []  # the children of the target's entry that are the target
        rewind.lives = dict(stored.lives)

    def given(self, unit: str) -> dict[str, Any] | None:
        """The record that the caller wants to be assumed."""
        return self.plan.command.records.get(self.prefix + unit)

    def _given_inside(self, unit: str) -> dict[str, Any] | None:
        """What the last step of a nested workflow is said to have given is what the workflow gave."""
        inner = self.workflow.units.get(unit)
        last = self.given(f"{unit}.{inner.entries[-1].id}") if isinstance(inner, builder.Workflow) else None
        return {"output": last["output"]} if last is not None and "output" in last else None

    def begin(self, known: list[Any], given: Any) -> None:
        """The workflow's input: what is known of it, else what its first step gets or is said to have got, else `{}`."""
        said = [record for unit in _units(self.workflow.entries[0]) if (record := self.given(unit)) is not None]
        made_up: dict[str, Any] = {}
        found: list[Any] = [*known, *([] if given is None else [given]), *(r["input"] for r in said if "input" in r), made_up]
        self.rewind.input = self.rewind.prev = found[0]
        if self.stored.given is not None and found[0] == self.stored.input:
            self.rewind.prev = self.stored.given

    def over(self, entry: Entry, given: Any) -> None:
        """An entry that counts as complete; `given` is its output then, if not None."""
        self.rewind.done.append(entry.id)
        prev = self.rewind.prev
        match entry:
            case SleepEntry():
                prev = self._step(entry.id, prev, prev if given is None and not self._is_known(entry.id, prev) else given)
            case MapEntry() | ForeachEntry() | ThenEntry(unit=steps.Step()) | LoopEntry(unit=steps.Step()):
                prev = self._step(entry.id, prev, given)
            case ThenEntry() | LoopEntry():
                prev = self._child(entry.id, prev, given)
            case ParallelEntry() | BranchEntry():
                prev = self._members(entry, prev, given)
            case _:
                assert_never(entry)
        self.rewind.prev = prev if given is None else given

    def _step(self, unit: str, prev: Any, given: Any) -> Any:
        record, said = self.stored.steps.get(unit), self.given(unit)
        self.rewind.order.append(unit)
        if record is not None and record.status == "success":
            self.rewind.keep.append(unit)
            if said is None and given is None:
                return record.output
        assumed = self.rewind.steps[unit] = self._assumed(record, said, prev, given)
        return assumed.output

    def _is_known(self, unit: str, given: Any) -> bool:
        """Whether it is on record what came of this input: a sleep gives what it gets, unless a former travel said otherwise."""
        record = self.stored.steps.get(unit)
        return record is not None and record.status == "success" and record.input == given

    def _child(self, unit: str, prev: Any, given: Any) -> Any:
        child, said = self._stored_child(unit), self.given(unit) or self._given_inside(unit)
        self.rewind.order.append(unit)
        if child is not None and child.status == "success":
            self.rewind.keep.append(unit)
            if said is None and given is None:
                return child.output
        assumed = self.rewind.children[self.stored.seg(unit)] = self._assumed(child, said, prev, given)
        return assumed.output

    def _members(self, entry: ParallelEntry | BranchEntry, prev: Any, given: Any) -> Any:
        outputs = as_dict(given) or {}
        names = [m.id for m in entry.members]
        if isinstance(entry, BranchEntry):
            some = [n for n in names if n in outputs or self.given(n) is not None or self._stored_child(n) is not None]
            names = some or ([] if entry.id in self.stored.blocks and given is None else names)
        found: dict[str, Any] = {}
        for name in names:
            child = self._stored_child(name)
            if isinstance(entry, ParallelEntry) and entry.allow_failure and child is not None and child.status == "failed":
                self.rewind.order.append(name)
                self.rewind.keep.append(name)
                found[name] = None
            else:
                found[name] = self._child(name, prev, outputs.get(name))
        return found

    def _stored_child(self, unit: str) -> Actor | None:
        paths = self.stored.children.get(unit)
        return self.plan.tree.actors.get(paths[-1]) if paths else None

    def _assumed(self, stored: StepRecord | Actor | None, said: dict[str, Any] | None, prev: Any, given: Any) -> Assumed:
        """From the caller's record, else what the entry after it is given, else what is stored, else made up."""
        said, now = said or {}, self.plan.now
        made_up: dict[str, Any] = {}
        kept = made_up if stored is None or stored.status != "success" else stored.output
        began, ended = (None, None) if stored is None else (stored.started_at, stored.ended_at)
        return Assumed(
            said.get("input", prev if stored is None else stored.input),
            said.get("output", kept if given is None else given),
            said.get("started_at", began or now), said.get("ended_at", ended or now),
        )  # fmt: skip

    def aim(self, entry: Entry, path: tuple[str, ...]) -> None:
        """What stays of the target's own entry: siblings, the items that succeeded of a foreach that did not, and those that
        succeeded without coming to a target inside them, if others came to it."""
        target, *deeper = path
        self.again = [target]
        match entry:
            case ParallelEntry():
                for member in entry.members:
                    if member.id != target:
                        self._sibling(member.id, made_up=not self.plan.command.per_step)
                self.rewind.aims[entry.id] = [target]
            case BranchEntry():
                arms = [m.id for m in entry.members if m.id != target and self._sibling(m.id, made_up=False)]
                self.rewind.aims[entry.id] = [target, *arms]
            case ForeachEntry():
                record = self.stored.steps.get(entry.id)
                if deeper:
                    known = self._known_items(entry.id)
                    came = {stem for stem, item in known if self._came_to(item, deeper)}
                    self._items(entry.id, came or {stem for stem, _ in known})
                elif self.plan.command.input is None and (record is None or record.status != "success"):
                    self._items(entry.id, set())
                    self.again = [stem for stem in self.rewind.lives if stem.startswith(f"{target}=")]
                else:
                    self.again = [f"{target}={n}" for n in range(len(as_list(self.rewind.prev) or ()))]
            case MapEntry() | SleepEntry():
                self.rewind.aims[entry.id] = [target]
            case ThenEntry() | LoopEntry():
                pass
            case _:
                assert_never(entry)

    def _sibling(self, unit: str, made_up: bool) -> bool:
        """One that succeeded, or is not at its end, stays; one that was canceled, or cannot go on, begins anew; of any
        other success is assumed if it is given or to be made up. False: nothing is known of it."""
        child, given = self._stored_child(unit), self.given(unit) is not None
        if child is not None and not given and child.status not in ("failed", "tripwire"):
            if child.status == "success" or (child.status != "canceled" and self._goes_on(child)):
                self.rewind.order.append(unit)
                self.rewind.keep.append(unit)
                self.plan.staying.append(child.path)
            return True
        if given or made_up:
            self._child(unit, self.rewind.prev, None)
        return given or made_up

    def _goes_on(self, child: Actor) -> bool:
        """Whether nothing of it is lost. A timer knows what waits for it by its name only, is gone with the run's end and is
        not of a fork; a spread child is about to hear of its run's end."""
        tree, inside = self.plan.tree, [child, *self.plan.tree.below(child.path)]
        ended = tree.root.status in ENDED
        if ended and any(actor.started and actor.status not in ENDED for actor in inside):
            return False
        stays = not ended and self.rewind.path == self.rewind.was and self.plan.command.origin is None
        return stays or not any(True for actor in inside for _ in waits(actor))

    def _known_items(self, unit: str) -> list[tuple[str, Actor]]:
        found = [(stem, self.plan.tree.actors.get(join(self.stored.path, self.stored.seg(stem)))) for stem in sorted(_items(self.stored, unit))]
        return [(stem, item) for stem, item in found if item is not None]

    def _came_to(self, actor: Actor, target: list[str]) -> bool:
        name, *deeper = target
        below = [self.plan.tree.actors[p] for p in actor.children.get(name, ()) if p in self.plan.tree.actors]
        return name in actor.order and (not deeper or any(self._came_to(child, deeper) for child in below))

    def _items(self, unit: str, again: set[str]) -> None:
        """Those of a foreach that succeeded stay, but for some; all others live again."""
        for stem in _items(self.stored, unit):
            child = self.plan.tree.actors.get(join(self.stored.path, self.stored.seg(stem)))
            if child is not None and child.status == "success" and stem not in again:
                self.rewind.items.append(segment(child.path))
            else:
                self.rewind.lives[stem] = self.stored.life(stem) + 1
        if self.rewind.items:
            self.rewind.order.append(unit)

    def forget(self, entries: tuple[Entry, ...]) -> None:
        """Every place from the target on lives again, but for what stays."""
        if not self.plan.ran:
            return
        stays = {*self.rewind.keep, *self.rewind.steps, *(seg.partition("@")[0] for seg in self.rewind.children)}
        stays |= {seg.partition("=")[0] for seg in self.rewind.items}
        for unit in (unit for entry in entries for unit in _units(entry) if unit not in stays):
            lives = self.rewind.lives
            former = [stem for stem in lives if stem.partition("=")[0] == unit]
            life = max([lives.pop(stem) for stem in former], default=1)
            lives[unit] = life + 1


def _index(workflow: builder.Workflow, unit: str) -> int:
    for index, entry in enumerate(workflow.entries):
        if unit in _units(entry):
            return index
    raise GraphMismatch(f"workflow {workflow.id!r}, version {workflow.version!r}, has no step {unit!r} to travel to")


def _units(entry: Entry) -> list[str]:
    if isinstance(entry, (ParallelEntry, BranchEntry)):
        members: tuple[Unit, ...] = entry.members
        return [m.id for m in members]
    return [entry.id]


def _items(actor: Actor, unit: str) -> set[str]:
    """The items of a foreach that ever began, as "pack=3"."""
    return {segment(path).partition("@")[0] for path in actor.children.get(unit, ())}

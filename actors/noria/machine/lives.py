"""The lives of a place in the tree: a loop's next round, a nested workflow's next try, a time travel each begin one.

An actor knows for each unit which life is current. Whatever still arrives for an older one is passed over.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

from noria.contract.facts import Answered
from noria.contract.rewinds import Assumed, Retried, Rewind, Rewound
from noria.machine.state import Actor, StepRecord, Tree, join, live, parent, segment, split, write


def begin_round(tree: Tree, actor: Actor, fact: Answered) -> None:
    """A loop's nested workflow lives again on what its last round gave."""
    unit = fact.entry.rpartition(".")[0]
    before = tree.actors.get(join(actor.path, actor.seg(unit)))
    actor.prev = before.output if before is not None else None
    actor.lives[unit], actor.rounds[unit] = fact.life, actor.rounds.get(unit, 1) + 1
    actor.retries.pop(unit, None)


def retry(tree: Tree, actor: Actor, fact: Retried) -> None:
    """A nested workflow lives again on the same input."""
    actor.lives[fact.stem], actor.retries[fact.stem] = fact.life, fact.made
    tree.actor(join(actor.path, actor.seg(fact.stem))).until = fact.until
    tree.updated_at = fact.at


def succeed(tree: Tree, known: list[str], path: str) -> None:
    """Add a child's path; it takes the place of its own earlier lives, which nothing refers to any more."""
    stem = segment(path).partition("@")[0]
    if "@" in path:
        for former in [p for p in known if segment(p).partition("@")[0] == stem]:
            known.remove(former)
            _forget(tree, former)
    known.append(path)


def _forget(tree: Tree, path: str) -> None:
    for actor in [path, *(a.path for a in tree.below(path))]:
        tree.actors.pop(actor, None)


# Time travel ----------------------------------------------------------------------------------------------------


def adopt(tree: Tree, origin: Tree) -> None:
    """A fork begins with everything that another run came to, and with nothing of its chains."""
    root = tree.root
    for actor in origin.actors.values():
        mine = tree.actors[actor.path] = _unhosted(actor, actor.path)
        if actor.path == tree.base:
            mine.started, mine.status = root.started, "new"
    tree.state, tree.context = {}, {}
    write(tree.state, 0, live(origin.state))
    write(tree.context, 0, live(origin.context))


def _unhosted(actor: Actor, path: str) -> Actor:
    """The actor as one that lives in place at `path`, its chain not begun."""
    return replace(actor, path=path, last=0, in_seen=0, door=0, host="", started=0)


def rewind(tree: Tree, fact: Rewound) -> None:
    """Let the tree be what a time travel says."""
    before, root = tree.actors, tree.root
    tree.actors, paths = {tree.base: root}, sorted(before)
    for part in fact.rewinds:
        _rewind(tree, before, paths, part)
    root.status, root.output, root.error, root.tripwire, root.ended_at = "active", None, None, None, None
    travelled(tree, fact.command)
    tree.held = {place: StepRecord("suspended", suspend_payload=h.payload, suspended_at=h.suspended_at) for place, h in fact.held.items()}
    tree.held_data = [fact.command, fact.resume]
    tree.takeovers, tree.began_at, tree.updated_at = 0, fact.at, fact.at
    tree.parked_ms, tree.parked_since, tree.parked_until = 0, 0.0, 0.0


def travelled(tree: Tree, sequence: int) -> None:
    """A time travel at `sequence` lets a canceled run go on."""
    tree.travelled = sequence
    if tree.cancel < sequence:
        tree.cancel = 0


def _rewind(tree: Tree, before: dict[str, Actor], known: list[str], part: Rewind) -> None:
    """`known`: the paths of all actors before, in order."""
    was = before.get(part.was) or Actor(part.was)
    actor = tree.root
    if part.path != tree.base:
        actor = tree.actors[part.path] = Actor(part.path, member=was.member)
        above = tree.actor(parent(part.path))
        above.children.setdefault(split(segment(part.path))[0], []).append(part.path)
    steps, children, rounds, retries = was.steps, was.children, was.rounds, was.retries
    actor.input, actor.prev, actor.started_at = part.input, part.prev, was.started_at
    if not part.done:
        actor.given = part.prev if part.prev != part.input else None
    elif actor is not was:
        actor.given = was.given
    actor.steps = {unit: steps[unit] for unit in part.keep if unit in steps}
    actor.rounds = {unit: rounds[unit] for unit in part.keep if unit in rounds}
    actor.retries = {unit: retries[unit] for unit in part.keep if unit in retries}
    actor.children, actor.answers, actor.resumes, actor.bailed, actor.position, actor.suspended_at = {}, {}, {}, False, 0, 0
    actor.lives, actor.order, actor.blocks, actor.aims = dict(part.lives), list(part.order), list(part.done), dict(part.aims)
    items = set(part.items)
    for unit, paths in children.items():
        stay = [p for p in paths if unit in part.keep or segment(p) in items]
        for path in stay:
            _move(tree, before, known, path, join(part.path, segment(path)))
        if stay:
            actor.children[unit] = [join(part.path, segment(path)) for path in stay]
    for unit, assumed in part.steps.items():
        actor.steps[unit] = StepRecord("success", assumed.input, assumed.started_at, assumed.ended_at, assumed.output)
    for seg, assumed in part.children.items():
        _assume(tree, actor, seg, assumed)


def _move(tree: Tree, before: dict[str, Actor], known: list[str], was: str, path: str) -> None:
    """A child that stays, and all below it. One whose parent begins another life cannot go on under its old name: it lives
    in place from now on."""
    begin, end = (bisect_left(known, was + sign) for sign in "./")  # what begins with "was." stands between the two
    for actor in [before[p] for p in ([was] if was in before else []) + known[begin:end]]:
        moved = path + actor.path[len(was) :]
        tree.actors[moved] = actor if moved == actor.path else _unhosted(actor, moved)
        if moved != actor.path:
            renamed = {unit: [path + p[len(was) :] for p in paths] for unit, paths in actor.children.items()}
            tree.actors[moved].children = renamed


def _assume(tree: Tree, actor: Actor, seg: str, assumed: Assumed) -> None:
    path, unit = join(actor.path, seg), split(seg)[0]
    child = tree.actors.get(path)
    if child is None:
        child = tree.actors[path] = Actor(path)
    known = actor.children.setdefault(unit, [])
    if path not in known:
        known.append(path)
    if unit not in actor.order:
        actor.order.append(unit)
    child.status, child.input, child.output = "success", assumed.input, assumed.output
    child.started_at, child.ended_at, child.error, child.leaf = assumed.started_at, assumed.ended_at, None, False


def assume_arms(tree: Tree, actor: Actor, fact: Answered) -> None:
    """Of the arms taken only the one that a time travel is about runs: the others count as done, unless the run goes
    step by step. What had stayed of an arm that is not taken now vanishes."""
    aim, *stayed = actor.aims[fact.entry]
    taken: list[str] = fact.value
    for arm in taken:
        if arm != aim and arm not in stayed and not tree.per_step:
            _assume(tree, actor, actor.seg(arm), Assumed(actor.prev, {}, tree.updated_at, tree.updated_at))
    for arm in [a for a in stayed if a not in taken]:
        for path in actor.children.pop(arm, []):
            _forget(tree, path)

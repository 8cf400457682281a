"""State of a run's tree of actors, folded from its log.

Keys of run state and request context are last-writer-wins registers by stream sequence, so that facts of different
chains commute: a host applies its own appends before it knows a child's, a later reader applies all in stream order,
and both get the same state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from noria.contract.commands import TimeTravel
from noria.contract.typed import made
from noria.contract.values import as_list

ENDED = frozenset({"success", "failed", "canceled", "tripwire"})
RESTING = ENDED | {"suspended", "waiting", "paused"}
WIDE = 32  # children in a list from which on it is not searched one by one

Register: TypeAlias = dict[str, list[Any]]  # key -> [sequence, value], or [sequence] once removed


@dataclass(slots=True)
class StepRecord:
    """The record of a step: what api.md calls a StepResult, with times in epoch seconds."""

    status: str
    input: Any = None
    started_at: float | None = None
    ended_at: float | None = None
    output: Any = None
    error: dict[str, Any] | None = None
    tripwire: dict[str, Any] | None = None
    suspend_payload: Any = None
    suspend_output: Any = None
    suspended_at: float | None = None
    labels: list[str] = field(default_factory=list[str])
    resumed: bool = False
    resume_payload: Any = None
    resumed_at: float | None = None
    attempts: int = 1
    iterations: int = 1
    until: float = 0.0  # while waiting


@dataclass(slots=True)
class Actor:
    """One actor: the root of a run, or a child in its tree."""

    path: str
    last: int = 0  # sequence of its last fact: what the next append expects
    in_seen: int = 0
    door: int = 0
    host: str = ""
    status: str = "new"  # new, active, or one of RESTING
    started: int = 0  # sequence of its start command; 0 for a child in place
    input: Any = None
    init: Any = None  # the innermost workflow's input, where its start tells it: those of 0.1.0 do
    prev: Any = None  # output of the entry before the next one
    given: Any = None  # what a time travel gave the first entry in place of the input
    output: Any = None
    error: dict[str, Any] | None = None
    tripwire: dict[str, Any] | None = None
    started_at: float | None = None
    ended_at: float | None = None
    steps: dict[str, StepRecord] = field(default_factory=dict[str, StepRecord])
    order: list[str] = field(default_factory=list[str])  # unit ids by first execution
    children: dict[str, list[str]] = field(default_factory=dict[str, list[str]])  # unit id -> paths, by first fact
    lives: dict[str, int] = field(default_factory=dict[str, int])  # unit id, or "unit=index" of one item -> its current life
    rounds: dict[str, int] = field(default_factory=dict[str, int])  # unit id of a loop's nested workflow -> current round
    retries: dict[str, int] = field(default_factory=dict[str, int])  # like lives -> how often a nested workflow was tried again
    answers: dict[str, Any] = field(default_factory=dict[str, Any])
    blocks: list[str] = field(default_factory=list[str])  # entries whose children all ended, or that a time travel passed
    aims: dict[str, list[str]] = field(default_factory=dict[str, list[str]])  # entry -> see Rewind
    resumes: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])  # step -> [sequence, data, to which actor]
    suspended_at: int = 0  # sequence of the last suspension
    member: int = 0
    leaf: bool = False
    bailed: bool = False
    until: float = 0.0  # a retried nested workflow does not begin before
    position: int = 0  # entries before it are complete; derived, a cache

    def life(self, stem: str) -> int:
        """The current life of a unit, or of one item of it ("pack=3"): a path never has two."""
        return max(self.lives.get(stem, 1), self.lives.get(stem.partition("=")[0], 1)) if self.lives else 1

    def seg(self, stem: str) -> str:
        """The segment under which a child lives now."""
        return looped(stem, self.life(stem)) if self.lives else stem


class Tree:
    """All actors at and below `base`, and what concerns the run as a whole."""

    __slots__ = (
        "actors", "base", "began_at", "cancel", "cancels", "commands", "context", "created_at", "cursor", "expires_at", "facts", "fired",
        "handed", "held", "held_data", "hosted", "leaf_done", "misfit", "parked_ms", "parked_since", "parked_until", "pending", "per_step",
        "resource_id", "state", "takeovers", "traceparent", "travelled", "travels", "updated_at", "usage", "version", "wide",
    )  # fmt: skip

    def __init__(self, base: str = "") -> None:
        self.base = base
        self.actors: dict[str, Actor] = {base: Actor(base)}
        self.pending: list[tuple[int, str]] = []  # commands that no fact of their actor covers yet
        self.state: Register = {}
        self.context: Register = {}
        self.fired: dict[str, float] = {}  # path -> the latest timer that is due
        self.held: dict[str, StepRecord] = {}  # by place: suspensions that a time travel answers when their step is reached
        self.held_data: list[Any] = [0, None]  # [sequence, data] for them
        self.travels: dict[int, TimeTravel] = {}  # time travels that no fact of the root covers yet
        self.cancel = 0  # the last one
        self.cancels: list[int] = []  # those that no fact covers yet; derived: whoever loads a tree reads them again
        self.travelled = 0  # sequence of the last time travel: a cancel before it counts no more
        self.commands = 0  # to the root, folded
        self.per_step = 0  # sequence of the command that asked for one step only
        self.leaf_done = 0  # sequence of the last fact that ended or suspended a step
        self.takeovers = 0  # since the last progress, from hosts that did not say that they leave
        self.handed = False  # the last host said so
        self.cursor = 0  # facts up to here are folded
        self.facts = 0  # messages folded
        self.misfit: str | None = None  # why the worker that saw it last cannot host it; until the next fact
        self.hosted = False  # somebody hosted it, though there may be no fact yet
        self.usage: dict[str, int] = {}  # tokens, by kind
        self.resource_id: str | None = None
        self.version = "1"
        self.traceparent: str | None = None
        self.created_at: float | None = None
        self.expires_at: float | None = None  # when the record of an ended run is hidden
        self.began_at: float | None = None  # the start, or the last time travel
        self.updated_at: float | None = None
        self.parked_ms = 0  # how long the run rested suspended, before its last such rest
        self.parked_since = 0.0  # that one's beginning; 0: there was none
        self.parked_until = 0.0  # and its end: a step went on by a resume; 0: none did
        self.wide: dict[int, tuple[list[str], set[str]]] = {}  # long lists of children as sets, by id; derived, a cache

    @property
    def root(self) -> Actor:
        return self.actors[self.base]

    @property
    def newest_command(self) -> int:
        """Sequence of the last command to the root: what the next one expects."""
        return max([sequence for sequence, path in self.pending if path == self.base] + [self.root.in_seen])

    @property
    def over(self) -> bool:
        """Whether the run ended, and no time travel is about to let it go on."""
        return self.root.status in ENDED and not self.travels

    def is_over(self, path: str) -> bool:
        """Whether a path belongs to a life that is over, or to an item of a foreach that ended, which may be forgotten."""
        while path != self.base:
            above = self.actors.get(parent(path))
            unit, index, life = split(segment(path))
            if above is not None:
                current = above.life(unit if index is None else f"{unit}={index}")
                if life < current or (index is not None and unit in above.blocks and life == current):
                    return True  # a later life than the current one began after what this tree knows
            path = parent(path)
        return False

    def lives_elsewhere(self, path: str) -> bool:
        """Whether an actor has a host of its own, or is below one that has: of its start only that host need know."""
        return any(actor.path != self.base and actor.started for p in (path, *above(path)) if (actor := self.actors.get(p)) is not None)

    def actor(self, path: str) -> Actor:
        """The actor at `path`, made when it is not there yet; its input follows from its parent."""
        actor = self.actors.get(path)
        if actor is None:
            actor = self.actors[path] = Actor(path)
            self.give(actor)
        return actor

    def give(self, actor: Actor) -> None:
        """Its input, as its parent stands now."""
        actor.input = actor.prev = self._given(actor.path)

    def _given(self, path: str) -> Any:
        index = split(segment(path))[1]
        above = self.actor(parent(path))
        if index is not None:
            items = as_list(above.prev)
            return items[index] if items is not None and index < len(items) else None
        return above.prev

    def members(self, known: list[str]) -> list[str] | set[str]:
        """To look a child up in a list of children. A long one as a set: who adds to the list adds to the set, and it is
        made anew when the list changed otherwise."""
        if len(known) < WIDE:
            return known
        found = self.wide.get(id(known))
        if found is None or found[0] is not known or len(found[1]) != len(known):
            if len(self.wide) >= WIDE:
                self.wide.clear()
            found = self.wide[id(known)] = (known, set(known))
        return found[1]

    def below(self, path: str) -> list[Actor]:
        """All actors under `path`, itself not included."""
        prefix = f"{path}." if path else ""
        return [a for p, a in self.actors.items() if p != path and p.startswith(prefix)]

    def at(self, path: str) -> Tree:
        """What an actor of this tree knows of itself and of those below it, as a tree of its own; it shares them."""
        tree = Tree(path)
        for name in ("state", "context", "fired", "cancel", "cursor", "resource_id", "version", "traceparent", "created_at"):
            setattr(tree, name, getattr(self, name))
        tree.actors.update({a.path: a for a in self.below(path)})
        if path in self.actors:
            tree.actors[path] = self.actors[path]
            if self.root.status in ENDED:  # of what it did since, this tree says nothing
                tree.cursor = min(tree.cursor, tree.root.last)
        else:
            tree.cursor = 0  # not begun then, or forgotten with its fan-out's end: its own log says,
            if self.is_over(path):
                tree.root.status = "canceled"  # if it has not aged out: whatever it came to, nobody waits for it
        tree.pending = [p for p in self.pending if p[1] in tree.actors]
        return tree

    def dump(self) -> dict[str, Any]:
        """For JSON (dataclasses are left to the encoder); `Tree.of` of what comes back gives the same tree, but for
        commands that no fact covers: whoever loads a tree reads them again."""
        data = {name: getattr(self, name) for name in self.__slots__ if name not in ("actors", "cancels", "travels", "wide")}
        data["actors"] = list(self.actors.values())
        return data

    @classmethod
    def of(cls, data: dict[str, Any]) -> Tree:
        """From `dump()`, through JSON. Raises one of `values.BAD_DATA` for anything else."""
        tree = cls(_like("", data["base"]))
        for name in cls.__slots__:
            if name not in ("actors", "cancels", "wide") and name in data:
                setattr(tree, name, _like(getattr(tree, name), data[name]))
        tree.pending = [(sequence, path) for sequence, path in tree.pending]
        tree.held = {place: made(StepRecord, cast(Any, given)) for place, given in tree.held.items()}
        for given in data["actors"]:
            given["steps"] = {k: made(StepRecord, v) for k, v in given["steps"].items()}
            tree.actors[given["path"]] = made(Actor, given)
        if not all(type(entry) is list for register in (tree.state, tree.context) for entry in register.values()):
            raise ValueError("a register of another shape")
        return tree


def items(tree: Tree, actor: Actor, unit: str) -> list[Actor]:
    """The items of a foreach of an actor, and all that is below them."""
    prefix = join(actor.path, f"{unit}=")
    return [a for path, a in tree.actors.items() if path.startswith(prefix)]


def suspension_of(actors: list[Actor]) -> dict[str, Any]:
    """What the record of several actors together tells of their last suspension and their last resume. Of several at one
    time the paths decide: in which order the actors are known hangs on who looks."""
    steps = [(a.path, s) for a in actors for s in a.steps.values()]
    _, suspended = max((m for m in steps if m[1].suspended_at is not None), key=lambda m: (m[1].suspended_at or 0.0, m[0]), default=("", None))
    _, resumed = max((m for m in steps if m[1].resumed), key=lambda m: (m[1].resumed_at or 0.0, m[0]), default=("", None))
    found: dict[str, Any] = {}
    if suspended is not None:
        found.update(suspended_at=suspended.suspended_at, suspend_payload=suspended.suspend_payload)
    if resumed is not None:
        found.update(resumed_at=resumed.resumed_at, resume_payload=resumed.resume_payload)
    return found


def _like(default: Any, value: Any) -> Any:
    """The value, of the type that a new tree has there; None stands for an optional text or time."""
    if type(value) is type(default) or (default is None and type(value) in (str, int, float)):
        return value
    raise ValueError(f"{str(value)[:100]!r} instead of a {type(default).__name__}")


def live(register: Register) -> dict[str, Any]:
    """What a register holds, removed keys left out."""
    return {key: entry[1] for key, entry in register.items() if len(entry) > 1}


def write(register: Register, sequence: int, values: dict[str, Any] | None) -> None:
    """Later writers win."""
    for key, value in (values or {}).items():
        if key not in register or register[key][0] <= sequence:
            register[key] = [sequence, value]


def remove(register: Register, sequence: int, keys: list[str] | None) -> None:
    """Later removers win."""
    for key in keys or ():
        if key not in register or register[key][0] <= sequence:
            register[key] = [sequence]


def join(path: str, seg: str) -> str:
    return f"{path}.{seg}" if path else seg


def place(path: str, step: str) -> str:
    """Where a step stands in the graph, whatever life it has: unit ids and item indexes from the outermost workflow down."""
    stems = [seg.partition("@")[0] for seg in path.split(".")] if path else []
    return ".".join([*stems, step])


def above(path: str) -> list[str]:
    """The paths of the actors above one, the nearest first."""
    found: list[str] = []
    while path:
        path = parent(path)
        found.append(path)
    return found


def parent(path: str) -> str:
    return path.rpartition(".")[0]


def segment(path: str) -> str:
    return path.rpartition(".")[2]


def looped(unit: str, life: int) -> str:
    """The segment of a unit's (or item's) n-th life."""
    return unit if life == 1 else f"{unit}@{life}"


def split(seg: str) -> tuple[str, int | None, int]:
    """(unit id, foreach index, life) of a segment."""
    unit, _, life = seg.partition("@")
    unit, _, index = unit.partition("=")
    return unit, int(index) if index else None, int(life) if life else 1

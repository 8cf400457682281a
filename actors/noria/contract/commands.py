"""Commands: what is asked of an actor. A closed union, matched once in `machine/fold.py`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

from noria.contract.typed import made
from noria.contract.values import dumps, loads, too_new
from noria.errors import NewerFormat, NoriaError

FORMAT = 1
LATER = {"later": True}  # of a field that the first release did not have: it is not sent without need, since that one refuses it
SHARING_FORMAT = 2  # of a command that refers to what it shares with others


@dataclass(slots=True)
class Start:
    """Begin. To the root of a run by a client; to a spread child by its parent's host (then with `member`).

    `init` is not given any more: with each item of a foreach the whole list was sent, and stored. `travelled`: sequence of
    the run's last time travel. A cancel before it, which a record may still tell of, is not the child's. `shared`: the blob
    of state and context, of which the command then only says what changed since.
    """

    kind: ClassVar[str] = "start"
    id: str
    at: float
    input: Any = None
    resource_id: str | None = None
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    context: dict[str, Any] = field(default_factory=dict[str, Any])
    per_step: bool = False
    version: str = "1"
    traceparent: str | None = None
    init: Any = None
    member: int = 0
    travelled: int = field(default=0, metadata=LATER)
    shared: str = field(default="", metadata=LATER)


@dataclass(slots=True)
class Resume:
    """Go on. `targets` are (path of the actor, step id); empty: a paused run goes on with its next entry.

    `context` is what the caller changes; to a spread child, by its parent's host, it is all there is, and so is `state`;
    `shared` as in a start.
    """

    kind: ClassVar[str] = "resume"
    id: str
    at: float
    targets: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    data: Any = None
    context: dict[str, Any] = field(default_factory=dict[str, Any])
    per_step: bool = False
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    traceparent: str | None = None
    shared: str = field(default="", metadata=LATER)


@dataclass(slots=True)
class Cancel:
    """End as canceled, unless it ended before."""

    kind: ClassVar[str] = "cancel"
    id: str
    at: float
    traceparent: str | None = None


@dataclass(slots=True)
class TimerFired:
    """A timer is due: `path` and `step` say whose, `until` which (a later one replaces it)."""

    kind: ClassVar[str] = "timer"
    id: str
    at: float
    path: str = ""
    step: str = ""
    until: float = 0.0


@dataclass(slots=True)
class Restart:
    """Have a host: changes nothing."""

    kind: ClassVar[str] = "restart"
    id: str
    at: float
    traceparent: str | None = None


@dataclass(slots=True)
class TimeTravel:
    """Go on from `target` (unit ids from the outermost workflow down), of a run that rests or ended. To a run that never
    ran it is the start as well; then `origin` may hold what another run's tree dumped, to begin with its records.

    `records` are assumed for steps before the target, by dotted path: `input`, `output`, `started_at`, `ended_at`
    (epoch seconds), each optional. None in `input` or `resume`: not given.
    """

    kind: ClassVar[str] = "time-travel"
    id: str
    at: float
    target: list[str] = field(default_factory=list[str])
    input: Any = None
    resume: Any = None
    records: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    context: dict[str, Any] = field(default_factory=dict[str, Any])
    per_step: bool = False
    resource_id: str | None = None
    version: str = "1"
    traceparent: str | None = None
    origin: dict[str, Any] | None = None


Command: TypeAlias = Start | Resume | Cancel | TimerFired | Restart | TimeTravel
KINDS: dict[str, type[Command]] = {c.kind: c for c in (Start, Resume, Cancel, TimerFired, Restart, TimeTravel)}
FIELDS = {c: [(f.name, "later" not in f.metadata) for f in fields(c)] for c in KINDS.values()}


def encode(command: Command) -> bytes:
    """The command as JSON."""
    given = {name: value for name, first in FIELDS[type(command)] if (value := getattr(command, name)) or first}
    return dumps({"v": SHARING_FORMAT if given.get("shared") else FORMAT, "kind": command.kind, **given})


def decode(body: bytes) -> Command:
    """The command back. Raises NewerFormat, or NoriaError for what is no command."""
    try:
        data = loads(body)
        format = data.pop("v")
        if format > (SHARING_FORMAT if data.get("shared") else FORMAT):
            raise NewerFormat(too_new("a command", format, FORMAT))
        command = made(KINDS[data.pop("kind")], data)
        if isinstance(command, TimeTravel) and not command.target:
            raise ValueError("a time travel without a target")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise NoriaError(f"not a command: {error!r}") from error
    if isinstance(command, Resume):
        command.targets = [(path, step) for path, step in command.targets]
    return command

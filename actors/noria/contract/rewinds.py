"""The facts by which a place of the tree begins another life, and what a time travel makes of each actor on its way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from noria.contract.typed import made


@dataclass(slots=True)
class Assumed:
    """A success that is taken for granted. Times in epoch seconds."""

    input: Any = None
    output: Any = None
    started_at: float | None = None
    ended_at: float | None = None


@dataclass(slots=True)
class Held:
    """A suspension that waits for its step to be reached again, and then for the data that the time travel gave."""

    payload: Any = None
    suspended_at: float | None = None


@dataclass(slots=True)
class Rewind:
    """One actor on the way to the target. It lived at `was`, it goes on at `path` (the root stays where it is, any other
    begins its next life); nothing of it stays but what is named here."""

    path: str
    was: str
    input: Any = None
    prev: Any = None  # the output that the next entry gets
    done: list[str] = field(default_factory=list[str])  # entries that count as complete
    order: list[str] = field(default_factory=list[str])  # units that have a record
    keep: list[str] = field(default_factory=list[str])  # units whose records and children stay
    items: list[str] = field(default_factory=list[str])  # segments of single children that stay
    lives: dict[str, int] = field(default_factory=dict[str, int])  # all lives that are not the first
    steps: dict[str, Assumed] = field(default_factory=dict[str, Assumed])  # by unit
    children: dict[str, Assumed] = field(default_factory=dict[str, Assumed])  # by segment
    aims: dict[str, list[str]] = field(default_factory=dict[str, list[str]])  # block, mapping or sleep -> its target, and the arms that stay


@dataclass(slots=True)
class Retried:
    """A nested workflow that failed is tried again, not before `until`: `stem` (its segment without a life) begins `life`."""

    stem: str
    life: int
    made: int  # retries, this one included
    until: float
    at: float


@dataclass(slots=True)
class Rewound:
    """A time travel, the command at sequence `command`: every fact before this one counts only as far as `rewinds` says.

    `held` (by `machine.state.place`) are suspensions that get `resume` when their step is reached.
    """

    command: int
    at: float
    rewinds: list[Rewind]
    held: dict[str, Held] = field(default_factory=dict[str, Held])
    resume: Any = None


def encode_life(fact: Retried | Rewound) -> dict[str, Any]:
    """What only the engine needs of it: all. Dataclasses are left to the encoder."""
    if isinstance(fact, Retried):
        return {"k": "retried", "stem": fact.stem, "life": fact.life, "n": fact.made, "until": fact.until, "t": fact.at}
    return {"k": "rewound", "by": fact.command, "t": fact.at, "rewinds": fact.rewinds, "held": fact.held, "resume": fact.resume}


def decode_life(meta: dict[str, Any]) -> Retried | Rewound:
    """From `encode_life`, through JSON."""
    if meta["k"] == "retried":
        return Retried(meta["stem"], meta["life"], meta["n"], meta["until"], meta["t"])
    held = {place: made(Held, h) for place, h in meta["held"].items()}
    return Rewound(meta["by"], meta["t"], [_rewind(r) for r in meta["rewinds"]], held, meta["resume"])


def _rewind(data: dict[str, Any]) -> Rewind:
    steps = {unit: made(Assumed, a) for unit, a in data["steps"].items()}
    children = {segment: made(Assumed, a) for segment, a in data["children"].items()}
    return made(Rewind, {**data, "steps": steps, "children": children})

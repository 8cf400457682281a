"""What hosts say of themselves to each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields

from noria.contract.values import dumps, loads
from noria.errors import NoriaError

FORMAT = 1


@dataclass(slots=True)
class Word:
    """A host's word: which workflows it hosts, their `Workflow.declaration`s in the same order, the sequences of the commands
    that it has in hand, and whether it leaves. Said in the name of a dead host by the one that missed it, then with `leaves`."""

    host: str
    workflows: list[str] = field(default_factory=list[str])
    held: list[int] = field(default_factory=list[int])
    leaves: bool = False
    declared: list[str] = field(default_factory=list[str])


def encode(word: Word) -> bytes:
    """The word as JSON."""
    return dumps({"v": FORMAT, **asdict(word)})


def decode(body: bytes) -> Word:
    """The word back. Raises NoriaError for what is none or of a newer format."""
    try:
        data = loads(body)
        if data.pop("v") > FORMAT:
            raise NoriaError("a host of a newer format")
        return Word(**{f.name: data[f.name] for f in fields(Word) if f.name in data})  # a newer build may say more
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise NoriaError(f"not a host's word: {error!r}") from error

"""What a resume may address."""

from __future__ import annotations

from typing import Any, NamedTuple

from noria.errors import AmbiguousResume, RunNotFound, RunNotSuspended, StepNotSuspended, choices
from noria.machine.state import ENDED, Tree
from noria.machine.view import suspensions


class Target(NamedTuple):
    """A suspended step: the actor that holds it, its id there, and its ids from the outermost workflow down."""

    actor: str
    step: str
    path: tuple[str, ...]


def targets(
    tree: Tree, step: tuple[str, ...] | None = None, label: str | None = None, index: int | None = None
) -> list[Target]:
    """The suspended steps that a resume means; `[]`: a paused run goes on with its next entry.

    Raises RunNotFound, RunNotSuspended, StepNotSuspended or AmbiguousResume; each names what there is.
    """
    root = tree.root
    if not root.started:
        raise RunNotFound("there is no such run")
    if root.status in ENDED or tree.cancel:
        raise RunNotSuspended(f"this run is {'canceled' if tree.cancel and root.status not in ENDED else root.status}, not suspended")
    if root.status == "paused" and step is None and label is None and index is None:
        return []
    found = [s for _, s in suspensions(tree)]
    if not found:
        raise RunNotSuspended(f"this run is {root.status}: none of its steps is suspended")
    names = sorted({".".join(s["path"]) for s in found})
    hits = [s for s in found if step is None or _addresses(step, s)]
    if not hits:
        raise StepNotSuspended(f"step {'.'.join(step or ())!r} is not suspended; suspended are {choices(names)}")
    if label is not None:
        hits = [s for s in hits if label in s["labels"]]
        labels = sorted({name for s in found for name in s["labels"]})
        if not hits:
            raise StepNotSuspended(f"no suspended step has the label {label!r}; there are {choices(labels)}")
    if index is not None:
        indexes = [str(s["index"]) for s in hits if s["index"] is not None]
        hits = [s for s in hits if s["index"] == index]
        if not hits:
            raise StepNotSuspended(f"no suspended item has the index {index}; there are {choices(indexes)}")
    return _one_place(hits)


def _addresses(step: tuple[str, ...], suspension: dict[str, Any]) -> bool:
    return tuple(suspension["path"][: len(step)]) == step


def _one_place(hits: list[dict[str, Any]]) -> list[Target]:
    places = sorted({".".join(s["path"]) for s in hits})
    if len(places) > 1:
        raise AmbiguousResume(f"Multiple suspended steps found: {choices(places)}. Name one with step=")
    return [Target(s["actor"], s["step"], tuple(s["path"])) for s in hits]

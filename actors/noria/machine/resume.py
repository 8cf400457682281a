"""What a resume may address."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from noria.errors import AmbiguousResume, RunNotFound, RunNotSuspended, StepNotSuspended, choices
from noria.machine.state import ENDED, RESTING, Tree, split
from noria.machine.view import status, suspensions

Place: TypeAlias = tuple[str, str]  # path of the actor that holds a suspended step, and the step's id there


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a caller names what he resumes; all None: the one step that is suspended. `data`: whether he hands something over."""

    step: tuple[str, ...] | None = None
    label: str | None = None
    index: int | None = None
    data: bool = False

    @property
    def anything(self) -> bool:
        return self == Wanted()


class Target(NamedTuple):
    """A suspended step: where it is, and its ids from the outermost workflow down."""

    place: Place
    path: tuple[str, ...]


def targets(tree: Tree, wanted: Wanted) -> list[Target]:
    """The suspended steps that a resume means; `[]`: a paused run goes on with its next entry.

    Raises RunNotFound, RunNotSuspended, StepNotSuspended or AmbiguousResume; each names what there is.
    """
    _check_resumable(tree)
    if tree.root.status == "paused" and wanted.anything:
        return []
    found = [s for _, s in suspensions(tree)]
    if not found:
        hint = "; resume() without data goes on with the next entry" if tree.root.status == "paused" else ""
        raise RunNotSuspended(f"This workflow run was not suspended: it is {status(tree)}{hint}")
    names = sorted({".".join(s["path"]) for s in found})
    hits = [s for s in found if wanted.step is None or _is_under(wanted.step, s["path"])]
    if not hits:
        raise StepNotSuspended(f"This workflow step {'.'.join(wanted.step or ())!r} was not suspended. Available suspended steps: {choices(names)}")
    if wanted.label is not None:
        labels = sorted({name for s in hits for name in s["labels"]})
        hits = [s for s in hits if wanted.label in s["labels"]]
        if not hits:
            below = f" in {'.'.join(wanted.step)!r}" if wanted.step is not None else ""
            raise StepNotSuspended(f"No suspended step{below} has the label {wanted.label!r}. Available labels: {choices(labels)}")
    if wanted.index is not None:
        indexes = [str(s["index"]) for s in hits if s["index"] is not None]
        hits = [s for s in hits if s["index"] == wanted.index]
        if not hits:
            raise StepNotSuspended(f"No suspended item has the index {wanted.index}. Available indexes: {choices(indexes)}")
    _check_one(hits)
    return [Target((s["actor"], s["step"]), tuple(s["path"])) for s in hits]


def remaining(tree: Tree, mine: list[Target]) -> list[Target]:
    """Those of the targets, found earlier, that still wait. Raises RunNotSuspended or StepNotSuspended for none."""
    _check_resumable(tree)
    if not mine:
        if tree.root.status != "paused":
            raise RunNotSuspended(f"This workflow run was not paused any more: it is {status(tree)}")
        return []
    waiting = {(s["actor"], s["step"]) for _, s in suspensions(tree)}
    left = [t for t in mine if t.place in waiting]
    if not left:
        raise StepNotSuspended(f"This workflow step {'.'.join(mine[0].path)!r} was not suspended any more")
    return left


def stretch(tree: Tree) -> int:
    """The first command of the run's present stretch of execution, or of the one that begins next."""
    root = tree.root
    return root.in_seen + 1 if root.status in RESTING or root.status == "new" else root.door


def addresses(tree: Tree, wanted: Wanted, places: Iterable[Place]) -> bool:
    """Whether these places, resumed by a command of the present stretch, are what a caller names."""
    return all(_addresses(tree, wanted, place) for place in places)


def _addresses(tree: Tree, wanted: Wanted, place: Place) -> bool:
    actor, step = place
    parts = [split(segment) for segment in actor.split(".")] if actor else []
    units = [unit for unit, _, _ in parts]
    path = units if units and units[-1] == step else [*units, step]
    record = tree.actors[actor].steps.get(step) if actor in tree.actors else None
    indexes = [index for _, index, _ in parts if index is not None]
    return (
        (wanted.step is None or _is_under(wanted.step, path))
        and (wanted.label is None or (record is not None and wanted.label in record.labels))
        and (wanted.index is None or indexes[-1:] == [wanted.index])
    )


def _check_resumable(tree: Tree) -> None:
    root = tree.root
    if not root.started:
        raise RunNotFound("There is no such run")
    if root.status in ENDED or tree.cancel:
        raise RunNotSuspended(f"This workflow run was not suspended: it is {root.status if root.status in ENDED else 'canceled'}")


def _is_under(step: tuple[str, ...], path: Iterable[str]) -> bool:
    """A nested workflow's id alone descends to what is suspended in it."""
    return tuple(path)[: len(step)] == step


def _check_one(hits: list[dict[str, Any]]) -> None:
    """A foreach counts as one step, as long as each of its items waits at one step only."""
    steps: dict[tuple[str, ...], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for s in hits:
        steps[tuple(s["each"] or s["path"])][s["item"]].add(".".join(s["path"]))
    if len(steps) > 1 or any(len(paths) > 1 for items in steps.values() for paths in items.values()):
        names = sorted({".".join(s["path"]) for s in hits})
        raise AmbiguousResume(f"Multiple suspended steps found: {choices(names)}. Name one with step=, label= or index=")

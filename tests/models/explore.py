"""Every state that a model's moves can reach, breadth first, each checked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar

W = TypeVar("W", bound=Hashable)
TOO_MANY = 5_000_000


class Found(NamedTuple):
    """How many states there are, and in how many of them nothing can move any more."""

    states: int
    finals: int


def explore(first: W, moves: Callable[[W], Iterable[W]], check: Callable[[W, bool], None]) -> Found:
    """Walk through all states. `check(world, final)` raises AssertionError for a state that must not be."""
    seen, todo, finals = {first}, deque([first]), 0
    while todo:
        world = todo.popleft()
        following = [w for w in moves(world) if w != world]
        check(world, not following)
        finals += not following
        for nxt in following:
            if nxt not in seen:
                seen.add(nxt)
                todo.append(nxt)
        assert len(seen) < TOO_MANY, "too many states: is something growing without end?"
    return Found(len(seen), finals)

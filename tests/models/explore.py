"""Every state that a model's moves can reach, breadth first, each checked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar

W = TypeVar("W", bound=Hashable)
TOO_MANY = 5_000_000
TOLD_EVERY = 50_000


class Found(NamedTuple):
    """How many states there are, and in how many of them nothing can move any more."""

    states: int
    finals: int


def untold(states: int, left: int) -> None:
    """Who explores little says nothing meanwhile."""


progress: Callable[[int, int], None] = untold  # hears now and then how many states are known, and how many of them wait


def explore(first: W, moves: Callable[[W], Iterable[W]], check: Callable[[W, bool], None]) -> Found:
    """Walk through all states. `check(world, final)` raises AssertionError for a state that must not be."""
    seen, todo, finals, walked = {first}, deque([first]), 0, 0
    while todo:
        world = todo.popleft()
        following = [w for w in moves(world) if w != world]
        check(world, not following)
        walked += 1
        if walked % TOLD_EVERY == 0:
            progress(len(seen), len(todo))
        finals += not following
        for nxt in following:
            if nxt not in seen:
                seen.add(nxt)
                todo.append(nxt)
        assert len(seen) < TOO_MANY, "too many states: is something growing without end?"
    return Found(len(seen), finals)

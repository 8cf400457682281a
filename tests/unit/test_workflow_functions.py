"""User functions of every shape are called by their signature."""

from __future__ import annotations

import functools
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from noria.errors import DefinitionError
from noria.workflow.context import Context
from noria.workflow.functions import UserFunction


def two(x: Any, ctx: Any) -> Any:
    return (x, ctx)


class Callable:
    def __init__(self) -> None:
        self.func = Mock()

    def __call__(self, prev: int, c: Context | None) -> Any:
        return (prev, c)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (functools.partial(two, x=1), (1, "c")), (functools.partial(two, 1), (1, "c")), (Callable(), ("v", "c")),
        (lambda x, *, ctx: (x, ctx), ("v", "c")), (lambda *a: a, ("v",)), (lambda p, i=5: (p, i), ("v", 5)),
    ],
)  # fmt: skip
def test_shapes(fn: Any, expected: Any) -> None:
    assert UserFunction.of(fn).call("v", "c") == expected


async def test_async_spies() -> None:
    spy = AsyncMock(return_value=1)
    function = UserFunction.of(spy, for_step=True)
    assert function.is_async and await function.call("v", "c") == 1
    spy.assert_awaited_once_with("v")


def test_a_required_keyword_that_nobody_fills_is_refused() -> None:
    with pytest.raises(DefinitionError, match="'y'"):
        UserFunction.of(lambda x, *, y: x, for_step=True)

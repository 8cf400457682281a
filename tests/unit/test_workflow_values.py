"""Values as JSON: nothing crashes, everything that is written can be read."""

from __future__ import annotations

import tracemalloc
from collections import ChainMap, UserDict, UserList
from datetime import datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from noria.contract.values import dumps, error_info, loads, plain
from noria.errors import InvalidInput
from noria.limits import CAUSE_DEPTH

CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "value",
    [{"big": 2**70, "n": float("nan")}, 10**400, 2**20000, "\ud800", ["\ud800"], {(1, 2): 2**70}, {"b": b"\xff", (1,): object}, CYCLE],
    ids=["big", "huge", "digits", "text", "texts", "key", "bytes", "cycle"],
)
def test_what_is_written_can_be_read(value: Any) -> None:
    loads(dumps(value))
    assert plain(plain(value)) == plain(value)


@pytest.mark.parametrize("value", [None, True, 0, -(2**63), 2**64 - 1, 1.5, "x"])
def test_scalars_stay(value: Any) -> None:
    assert plain(value) == value and type(plain(value)) is type(value)


def test_not_a_number_is_null_wherever_it_stands() -> None:
    assert plain(float("nan")) is None and plain([float("inf")]) == [None]


def test_python_types_become_their_json_form() -> None:
    given = {"s": {1}, "t": (1,), "d": timedelta(seconds=1), "at": datetime(2020, 1, 1), "u": UUID(int=1), "n": Decimal("1.5")}
    assert plain(given) == {"s": [1], "t": [1], "d": "PT1S", "at": "2020-01-01T00:00:00", "u": str(UUID(int=1)), "n": "1.5"}


def test_what_behaves_like_a_dict_or_a_list_is_one() -> None:
    known = {"a": 1}
    given = [MappingProxyType(known), UserDict(known), ChainMap(known), known.keys(), known.values(), known.items(), range(2), UserList([b"\xff"])]
    assert plain(given) == [known, known, known, ["a"], [1], [["a", 1]], [0, 1], ["b'\\xff'"]]


def test_errors_survive_their_own_faults() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

        def __bool__(self) -> bool:
            return False

    outer = ValueError("outer")
    outer.__cause__ = Broken()
    assert error_info(outer)["cause"]["message"] == "Broken"


def test_the_cause_chain_is_bounded_and_suppression_is_kept() -> None:
    error: BaseException = ValueError("0")
    for n in range(CAUSE_DEPTH * 2):
        above = ValueError(str(n))
        above.__cause__, error = error, above
    info, depth = error_info(error), 0
    while info["cause"] is not None:
        info, depth = info["cause"], depth + 1
    assert depth == CAUSE_DEPTH
    hidden = ValueError("x")
    hidden.__context__, hidden.__suppress_context__ = KeyError("y"), True
    assert error_info(hidden)["cause"] is None


def test_issues_are_plain_data_whatever_the_input_was() -> None:
    class Model(BaseModel):
        a: int

    error = InvalidInput("bad")
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Model).validate_python({"a": object})
    error.__cause__ = caught.value
    (issue,) = error_info(error)["attributes"]["issues"]
    assert issue["loc"] == ["a"]


def test_what_is_encoded_holds_no_more_than_it_says() -> None:
    """A worker keeps bodies until they are acknowledged: 400 runs in flight held 3 MB of empty buffers."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        bodies = [dumps({"n": n, "text": "x" * 300}) for n in range(1_000)]
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < 2 * sum(map(len, bodies))

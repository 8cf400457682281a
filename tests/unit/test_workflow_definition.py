"""Definitions: what is refused when written, what types mean, where mappings take their data from."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel
from typing_extensions import TypedDict

from noria.errors import DefinitionError, InvalidInput, NoriaError
from noria.retry import Retry
from noria.workflow.builder import Workflow
from noria.workflow.context import Context
from noria.workflow.mapping import from_input, from_step, resolve, template
from noria.workflow.steps import Step, step


class Model(BaseModel):
    a: int
    more: frozenset[int] = frozenset()


class Empty(BaseModel):
    pass


class Root(RootModel[int]):
    pass


class Aliased(BaseModel):
    x: int = Field(alias="y")


class WantsY(BaseModel):
    y: int


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Letter(enum.Enum):
    A = "a"


class Typed(TypedDict):
    a: int


@dataclass
class Data:
    a: int
    b: str = "x"


async def echo(x: Any) -> Any:
    return x


def annotated(hint: Any, returns: Any = Any) -> Callable[..., Any]:
    def function(x: Any) -> Any:
        return x

    function.__annotations__ = {"x": hint, "return": returns}
    return function


@pytest.mark.parametrize(
    ("hint", "given", "typed", "kept"),
    [
        (tuple[int, str], [1, "a"], (1, "a"), [1, "a"]), (set[int], [1, 1], {1}, [1]), (Data, {"a": 1}, Data(1), {"a": 1, "b": "x"}),
        (Typed, {"a": 1, "z": 2}, {"a": 1}, {"a": 1}), (Model, {"a": 1, "z": 2}, Model(a=1), {"a": 1, "more": []}),
        (Letter, "a", Letter.A, "a"), (Literal["x"], "x", "x", "x"), (int | None, None, None, None), (bytes, "a", b"a", "a"),
        (list[int], ["1"], [1], [1]), (Empty, {"a": 1}, Empty(), {"a": 1}), (type(None), None, None, None),
    ],
)  # fmt: skip
def test_inputs_become_the_annotation_and_declared_types_stay_plain(hint: Any, given: Any, typed: Any, kept: Any) -> None:
    assert Step(annotated(hint)).parse_input(given) == (typed, kept)
    assert Step(annotated(Any), input=hint).parse_input(given) == (kept, kept)


def test_problems_are_listed_one_a_line() -> None:
    with pytest.raises(InvalidInput) as caught:
        Step(annotated(Any), id="s", input=list[Model]).parse_input([{"a": 1}, {"a": "q"}])
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("Step input validation failed: ") and "'s'" in first
    assert [line.startswith("- 1.a: ") for line in lines] == [True] and caught.value.__cause__ is not None


def test_step_takes_its_function_by_place_or_by_name() -> None:
    assert step(echo).id == step(fn=echo).id == step()(echo).id == "echo"
    with pytest.raises(TypeError):
        step(echo, unknown=1)  # type: ignore[call-overload]


@pytest.mark.parametrize("duration", ["1", None])
def test_sleeps_take_times_only(duration: Any) -> None:
    with pytest.raises(DefinitionError):
        Workflow("w").sleep(duration)
    with pytest.raises(DefinitionError):
        Workflow("w").sleep_until(duration)


def test_a_type_without_json_schema_does_not_stop_a_worker() -> None:
    assert Workflow("w", input=Callable[..., Any]).input_schema() == {}


def test_nodes_of_different_steps_differ() -> None:
    names = ("start", "finish", "a-b", "a_b", "n_x", "x")
    flow = Workflow("w")
    for name in names:
        flow = flow.then(step(echo, id=name))
    nodes = [line.split("[")[0].strip() for line in flow.to_mermaid().splitlines() if line.endswith("]")]
    assert len({*nodes, "start", "finish"}) == len(names) + 2


class Known(Context):
    init_data = {"u": {"n": [1, 2]}}
    state = {"s": None}
    request_context = {"t": "T"}

    def step_result(self, step: Any, default: Any = None) -> Any:
        return {"a": {}, "b": {"v": 3}, "n": None}.get(step, default)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (from_step(["a", "b"], "v"), 3), (from_step("a"), {}), (from_step("n"), None), (from_step("q", default=0), 0),
        (from_input("u.n.1"), 2), (from_input("u.n.7"), None), (from_input(), {"u": {"n": [1, 2]}}),
        (template("$5 ${prev.x} ${input.u} ${state.s}|${context.t} ${steps.b.v}"), '$5 true {"n": [1, 2]} |T 3'),
    ],
)  # fmt: skip
def test_sources(source: Any, expected: Any) -> None:
    assert resolve(source, {"x": True}, Known()) == expected


@pytest.mark.parametrize(
    ("source", "text"),
    [(from_step("q"), "'q'"), (from_step(["a", "b"], "v.z"), "'b'.*'v.z'"), (from_input("u.n.x"), "'u.n.x'"), (template("${steps.zz.v}"), "'zz'")],
)
def test_sources_name_what_is_missing(source: Any, text: str) -> None:
    with pytest.raises(NoriaError, match=text):
        resolve(source, None, Known())


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda: Retry(attempts=-1), r"attempts=-1"),
        (lambda: Retry(non_retryable=KeyError), "a tuple of exception classes"),  # type: ignore[arg-type]
        (lambda: Retry(non_retryable=("KeyError",)), "a tuple of exception classes"),  # type: ignore[arg-type]
        (lambda: Retry(delay=None), "delay=None.*a number"),  # type: ignore[arg-type]
        (lambda: step(str, id="s", timeout=-1), "step 's': timeout needs seconds.*not -1"),
        (lambda: step(str, id="s", retry=3), r"step 's': retry takes Retry\("),
        (lambda: Workflow("w", timeout="x"), "workflow 'w': timeout needs seconds"),  # type: ignore[arg-type]
        (lambda: Workflow("w", retention=-1), "workflow 'w': retention needs seconds"),
        (lambda: Workflow("w", version=2), "version needs text, not 2"),  # type: ignore[arg-type]
        (lambda: Workflow(5), "workflow id 5: use letters"),  # type: ignore[arg-type]
        (lambda: Workflow("w", triggers="orders"), r"list of on_event\(\.\.\.\), not 'orders'"),
        (lambda: Workflow("w").foreach(str, placement="here"), "placement 'here': choose one of 'auto', 'local', 'spread'"),
        (lambda: Workflow("w").branch((step(str), lambda x: x)), r"\(condition, step\) pairs"),
        (lambda: Workflow("w").map({"x": step(str)}), r"key 'x': write from_step\('str'\)"),
        (lambda: Workflow("w").map({"x": lambda prev: prev}), r"key 'x': write computed\("),
        (lambda: from_step(5), r"from_step\(5\): give a step"),
    ],
)
def test_what_is_written_wrongly_is_refused_with_its_place_and_the_fix(write: Callable[[], Any], said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        write()

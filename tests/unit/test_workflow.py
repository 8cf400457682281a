"""Definitions: what commit() refuses, how functions are called, what crosses the types."""

from __future__ import annotations

import warnings
from datetime import datetime
from unittest.mock import Mock

import pytest
from pydantic import BaseModel

from noria import (
    Context,
    Cron,
    DefinitionError,
    DuplicateStep,
    EmptyWorkflow,
    InvalidInput,
    Retry,
    Workflow,
    from_step,
    step,
    template,
)  # fmt: skip
from noria.contract.values import error_info, plain
from noria.workflow.checks import TypeFlowWarning, UnusedSettingWarning
from noria.workflow.functions import UserFunction


class Item(BaseModel):
    name: str
    count: int = 1


@step
async def pass_on(x: dict) -> dict:
    return x


def test_combinators_return_new_workflows() -> None:
    base = Workflow("w").then(pass_on)
    more = base.then(pass_on.clone(id="again"))
    assert (len(base.entries), len(more.entries)) == (1, 2)
    assert more.commit() is more and more.committed and not base.committed


def test_commit_refuses_what_cannot_run() -> None:
    with pytest.raises(EmptyWorkflow, match="'w'"):
        Workflow("w").commit()
    with pytest.raises(DuplicateStep, match="pass-on"):
        Workflow("w").then(pass_on).parallel(pass_on).commit()
    for flow in (Workflow("w").branch((lambda x: x, pass_on)), Workflow("w").parallel(pass_on), Workflow("w").map({}), Workflow("w").sleep(1)):
        taken = flow.entries[0].id  # it has a place in the log, though nobody named it
        with pytest.raises(DuplicateStep, match=f"'{taken}' is what the {taken[:-2]} in that place is called"):
            flow.then(pass_on.clone(id=taken)).commit()
    with pytest.raises(DefinitionError, match="ghost"):
        Workflow("w").then(pass_on).map({"x": from_step("ghost")}).commit()
    with pytest.raises(DefinitionError, match="letters"):
        step(lambda x: x, id="with.dots")
    with pytest.raises(DefinitionError):
        Workflow("w").foreach(pass_on, concurrency=0)
    with pytest.raises(DefinitionError, match=r"at least 1, or a function, not 2\.5"):
        Workflow("w").foreach(pass_on, concurrency=2.5)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="aware"):
        Workflow("w").sleep_until(datetime(2030, 1, 1))
    with pytest.raises(DefinitionError):
        Cron("1 2 3")


@pytest.mark.parametrize("text", ["${ prev.x}", "${}", "${nope.x}", "${steps}", "${prev", "${steps.}"])
def test_malformed_templates_are_refused_when_written(text: str) -> None:
    with pytest.raises(DefinitionError):
        template(text)


def test_functions_are_called_by_their_signature() -> None:
    def only_context(ctx: Context) -> str:
        return f"{ctx}"

    for fn, expected in (
        (lambda: "none", "none"), (lambda prev: prev, "v"), (lambda prev, c: (prev, c), ("v", "c")), (only_context, "c"),
        (Mock(return_value="spy"), "spy"), (str.upper, "V"),
    ):  # fmt: skip
        assert UserFunction.of(fn).call("v", "c") == expected
    with pytest.raises(DefinitionError):
        step(lambda a, ctx, b: a, id="three")


def test_inputs_are_validated_with_defaults_and_without_extras() -> None:
    @step
    async def typed(item: Item) -> int:
        return item.count

    @step(id="declared", input=Item)
    async def declared(item) -> int:
        return item["count"]

    value, kept = typed.parse_input({"name": "a", "extra": 1})
    assert isinstance(value, Item) and kept == {"name": "a", "count": 1}
    assert declared.parse_input({"name": "a", "extra": 1}) == ({"name": "a", "count": 1},) * 2
    assert typed.parse_input({"odd": 1}, validate=False) == ({"odd": 1},) * 2
    with pytest.raises(InvalidInput, match=r"step 'typed'") as caught:
        typed.parse_input({"count": "x"})
    assert {e["loc"][0] for e in caught.value.errors()} == {"name", "count"}


def test_the_types_of_neighbours_are_compared() -> None:
    @step
    async def number(x: dict) -> int:
        return 1

    @step
    async def item(x: Item) -> Item:
        return x

    with pytest.warns(TypeFlowWarning, match="Item"):
        Workflow("w").then(number).then(item).commit()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Workflow("w", input=Item).then(item).then(pass_on).then(item.clone(id="i2")).commit()


def test_settings_of_a_run_that_a_nested_workflow_has_are_told() -> None:
    inner = Workflow("inner", timeout=5, on_error=lambda: None, retention=1).then(pass_on).commit()
    with pytest.warns(UnusedSettingWarning, match="^workflow 'outer': timeout and on_error of the nested workflow 'inner' say nothing"):
        Workflow("outer", timeout=5).foreach(inner).commit()


def test_graph_and_mermaid_show_every_entry() -> None:
    inner = Workflow("inner").then(pass_on)
    flow = (
        Workflow("w").then(inner).parallel(pass_on.clone(id="p1"), pass_on.clone(id="p2")).branch((lambda x: True, pass_on.clone(id="b")))
        .foreach(pass_on.clone(id="f")).do_until(pass_on.clone(id="l"), lambda x: True).map(lambda x: x).sleep(1).commit()
    )  # fmt: skip
    kinds = [e["kind"] for e in flow.graph["entries"]]
    assert kinds == ["then", "parallel", "branch", "foreach", "do_until", "map", "sleep"]
    text = flow.to_mermaid()
    assert text.startswith("flowchart TD") and all(name in text for name in ("inner", "p1", "p2", "mapping-5", "sleep-6"))


def test_values_become_plain_json() -> None:
    assert plain({1: (1, 2), "m": Item(name="a"), "big": 2**70}) == {"1": [1, 2], "m": {"name": "a", "count": 1}, "big": 2**70}


def test_errors_keep_attributes_and_causes() -> None:
    class Odd(Exception):
        def __init__(self) -> None:
            super().__init__("odd")
            self.code, self.thing, self._hidden = 7, object, 1

    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise Odd from error
    except Odd as error:
        info = error_info(error)
    assert (info["type"], info["message"], info["attributes"]["code"]) == ("Odd", "odd", 7)
    assert info["cause"]["type"] == "KeyError" and "_hidden" not in info["attributes"]


def test_retry_pauses() -> None:
    retry = Retry(attempts=5, delay=1, backoff=2, max_delay=3)
    assert [retry.pause(n, 0.0) for n in (1, 2, 3)] == [1, 2, 3]

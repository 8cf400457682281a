"""Questions on a terminal: resume data by its schema, many runs at once, and Ctrl-C at any of them."""

from __future__ import annotations

from datetime import date
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field
from tests.cli.terminal import CTRL_C, CTRL_D, ENTER, talk
from tests.conformance.doubles import waits

from noria import Noria, Workflow


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    number: int = 5


class Form(BaseModel):
    name: str = Field(description="as in the passport")
    age: int = Field(ge=18)
    ok: bool
    colour: Colour
    kind: Literal[1, 2]
    home: Address
    work: Address | None = None
    tags: list[str]
    when: date
    nick: str | None = None
    maybe: bool | None = None
    sure: bool = True
    either: int | str
    shade: Colour = Colour.BLUE


def taking(kind: Any) -> Workflow:
    return Workflow("asks").then(waits("ask", lambda _, data: data, resume=kind)).commit()


async def resumed(noria: Noria, flow: Workflow, script: list[tuple[str, str]], *options: str) -> tuple[int, str]:
    assert (await noria.run(flow, 1, run_id="r", timeout=20)).status == "suspended"
    return await talk("runs", "resume", "r", *options, "--server", noria.url, "--namespace", noria.namespace, script=script)


async def test_every_kind_of_field_is_asked_for_until_it_fits(noria: Noria) -> None:
    script = [
        ("data.name (as in the passport):", "Bob\r"), ("data.age:", "many\r"), ("not integer: many", ""), ("data.age:", "3\r"),
        ("less than the minimum", ""), ("data.age:", "30\r"), ("data.ok [y/n]:", "maybe\r"), ("data.ok [y/n]:", "y\r"),
        ("data.colour ['red', 'blue']:", "green\r"), ("'green' is not one of ['red', 'blue']", ""), ("data.colour", "red\r"),
        ("data.kind [1, 2]:", "2\r"),
        ("data.home.street:", "Main\r"), ("data.home.number [5]:", ENTER), ("data.work: give it? [y/N]:", ENTER), ("data.tags:", '"a"\r'),
        ("is not of type 'array'", ""), ("data.tags:", "[1]\r"), ("data.tags.0: 1 is not of type 'string'", ""), ("data.tags:", '["a"]\r'),
        ("data.when:", "junk\r"), ("'junk' is no date", ""), ("data.when:", "2020-01-31\r"), ("data.nick:", ENTER), ("data.maybe:", "no\r"),
        ("data.sure [Y/n]:", "n\r"), ("data.either:", "either\r"), ("data.shade ['red', 'blue'] [blue]:", ENTER),
    ]  # fmt: skip
    flow = taking(Form)
    async with noria.worker(flow, lease=5):
        code, shown = await resumed(noria, flow, script)
        assert code == 0, shown
        record = await noria.runs.get("r")
    assert record is not None and record.result == {
        "name": "Bob", "age": 30, "ok": True, "colour": "red", "kind": 2, "home": {"street": "Main", "number": 5}, "work": None, "tags": ["a"],
        "when": "2020-01-31", "nick": None, "maybe": False, "sure": False, "either": "either", "shade": "blue",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "answers", "result"),
    [
        (int, ["x", "5"], 5), (str, ["5"], "5"), (list[int], ["[1", '["x"]', "[1]"], [1]), (Colour, ["green", "red"], "red"),
        (bool, ["perhaps", "n"], False),
    ],
)  # fmt: skip
async def test_data_that_is_no_object_is_asked_for_too(noria: Noria, kind: Any, answers: list[str], result: Any) -> None:
    flow = taking(kind)
    async with noria.worker(flow, lease=5):
        code, shown = await resumed(noria, flow, [("data", f"{answer}\r") for answer in answers])
        record = await noria.runs.get("r")
    assert code == 0 and shown.count("\ndata") >= len(answers), shown
    assert record is not None and record.result == result


async def test_a_step_is_named_by_its_whole_id(noria: Noria) -> None:
    """Not by a part of it, which another one's begins with."""
    flow = Workflow("two").parallel(waits("ask", lambda _, data: data, resume=int), waits("ask-more", lambda _, data: data, resume=bool)).commit()
    async with noria.worker(flow, lease=5):
        code, shown = await resumed(noria, flow, [("data:", "7\r")], "--step", "ask")
        record = await noria.runs.get("r")
    assert code == 4 and record is not None and record.steps["ask"].output == 7 and record.steps["ask-more"].status == "suspended", shown


@pytest.mark.parametrize("key", [CTRL_C, CTRL_D])
async def test_a_question_can_be_left_and_nothing_was_done(noria: Noria, key: str) -> None:
    flow = taking(int)
    async with noria.worker(flow, lease=5):
        code, shown = await resumed(noria, flow, [("data:", key)])
        assert code == 1 and "Abort" in shown and "Traceback" not in shown, shown
        place = ("--server", noria.url, "--namespace", noria.namespace)
        code, shown = await talk("runs", "cancel", "--workflow", "asks", *place, script=[("cancel 1 runs? [y/N]:", key)])
        assert code == 1 and "Abort" in shown and "Traceback" not in shown, shown
        assert (await noria.runs.list(status="suspended")).total == 1
        code, shown = await talk("runs", "watch", "r", *place, script=[("workflow-finish", CTRL_C)])
        assert code == 1 and "error: interrupted" in shown and "Traceback" not in shown, shown
        code, shown = await talk("runs", "cancel", "--workflow", "asks", *place, script=[("cancel 1 runs? [y/N]:", "y\r")])
        assert code == 0 and "cancel: 1 of 1 runs" in shown, shown

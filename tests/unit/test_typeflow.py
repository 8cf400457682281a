"""Which types flow into which: what `commit()` warns of, and where it keeps silent."""

from __future__ import annotations

import dataclasses
import enum
import warnings
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NoReturn, TypeVar

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, RootModel, field_validator, model_validator
from typing_extensions import TypedDict

from noria.workflow.builder import Workflow
from noria.workflow.checks import TypeFlowWarning
from noria.workflow.steps import Step

T = TypeVar("T")


class Item(BaseModel):
    a: int
    b: str = "x"


class More(Item):
    c: int = 1


class Other(BaseModel):
    b: str
    q: int


class Text(BaseModel):
    a: str


class Holds(BaseModel):
    inner: Item
    items: list[Item] = []


class HoldsText(BaseModel):
    inner: Text


class Generically(BaseModel, Generic[T]):
    v: T


class Empty(BaseModel):
    pass


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    b: str = ""


class Coerces(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)
    a: str


class Before(BaseModel):
    a: int
    z: int

    @model_validator(mode="before")
    @classmethod
    def anything(cls, given: Any) -> Any:
        return {"a": 1, "z": 2}


class FieldBefore(BaseModel):
    a: str

    @field_validator("a", mode="before")
    @classmethod
    def text(cls, given: Any) -> str:
        return str(given)


class Aliased(BaseModel):
    x: int = Field(alias="b")


class Choices(BaseModel):
    x: int = Field(validation_alias=AliasChoices("y", "a"))


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    a: int = Field(alias="zz")


class Tree(BaseModel):
    kids: list[Tree] = []


class Thicket(BaseModel):
    a: Thicket | None = None
    b: Thicket | None = None
    c: list[Thicket] = []
    d: dict[str, Thicket] = {}
    kids: list[Thicket] = []


class Hedge(Thicket):
    a: Hedge | None = None  # type: ignore[assignment]
    e: Hedge | None = None


class Root(RootModel[list[int]]):
    pass


class Named(NamedTuple):
    a: int


class Typed(TypedDict):
    a: int


class TypedOther(TypedDict):
    q: int


@dataclasses.dataclass
class Data:
    a: int
    b: str = "x"


class Color(enum.Enum):
    RED = "r"


class Size(enum.IntEnum):
    ONE = 1


class Both(BaseModel):
    a: Item
    b: int


class Lacks(BaseModel):
    a: Item
    c: int


def function(takes: Any, gives: Any) -> Callable[..., Any]:
    def work(x: Any) -> Any:
        return x

    work.__annotations__ = {"x": takes, "return": gives}
    return work


def takes(type: Any, gives: Any = Any, id: str = "s") -> Step:
    return Step(function(type, gives), id=id)


def gives(type: Any, id: str = "before") -> Step:
    return takes(Any, type, id)


def warned(flow: Workflow) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        flow.commit()
    assert all(w.category is TypeFlowWarning and w.filename == __file__ for w in caught)
    return [str(w.message) for w in caught]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (Item, Item), (More, Item), (Item, More), (Item, Data), (Data, Typed), (Typed, Item), (dict, Item), (dict[str, int], Item), (Item, dict),
        (Any, Item), (Item, Any), (Item, object), (Item | None, Item), (Item, Item | None), (Item | Other, Other), (Item, int | Item),
        (int, float), (float, int), (bool, int), (int, Size), (Literal["r"], Color), (str, Color), (Color, str), (Literal["a", 1], int),
        (str, datetime), (int, datetime), (datetime, str), (str, Decimal), (Decimal, float), (float, Decimal), (bytes, str),
        (list[Item], list[Data]), (list[Item], tuple[Item, ...]), (set[int], list[int]), (list, list[Item]), (list[int], Root), (Root, list[int]),
        (tuple[int, str], tuple[int, str]), (Item, Named), (Named, list), (Annotated[int, Field(gt=3)], int), (Generically[Any], Generically[int]),
        (Strict, Strict), (dict, Strict), (Empty, Item), (Item, Empty), (Open, Other), (Item, Coerces), (Item, Before), (int, Before),
        (Item, FieldBefore), (Item, Choices),
        (Item, ByName), (Tree, Thicket), (Thicket, Hedge),
        (Callable[..., Any], int), (NoReturn, int), (type(None), int | None), (list[Any], list[int]),
    ],
)  # fmt: skip
def test_what_may_fit_passes_in_silence(given: Any, wanted: Any) -> None:
    assert warned(Workflow("w").then(gives(given)).then(takes(wanted))) == []
    if given is not NoReturn:
        assert warned(Workflow("w", input=given).then(takes(wanted))) == []


@pytest.mark.parametrize(
    ("given", "wanted", "said"),
    [
        (int, Item, "Item cannot be made of int"), (Item, int, "int cannot be made of Item"), (int, str, "str cannot be made of int"),
        (str, int, "int cannot be made of str"), (type(None), int, "int cannot be made of None"), (str, list[str], "list cannot be made of str"),
        (Item, Other, "Other needs 'q', which Item does not have"), (Data, TypedOther, "TypedOther needs 'q', which Data does not have"),
        (Item, Aliased, "b: int cannot be made of str"), (Item, Text, "a: str cannot be made of int"), (int, Empty, "Empty cannot be made of int"),
        (Holds, HoldsText, "inner: a: str cannot be made of int"), (Generically[int], Generically[str], "v: str cannot be made of int"),
        (list[Item], Item, "Item cannot be made of list"), (Item, list[Item], "list cannot be made of Item"),
        (Item, Root, "list cannot be made of Item"), (Item, Strict, "Strict takes no 'a', which Item has"),
        (list[list[int]], list[list[Item]], "in the list: in the list: Item cannot be made of int"), (dict, int, "int cannot be made of dict"),
        (int | None, Item, "Item cannot be made of int"), (int, Item | list[int], "Item cannot be made of int"),
        (Literal["x"], Literal["y"], "'y' cannot be 'x'"), (Annotated[str, Field(max_length=3)], int, "int cannot be made of str"),
    ],
)  # fmt: skip
def test_what_never_fits_is_told(given: Any, wanted: Any, said: str) -> None:
    assert warned(Workflow("w", validate=False).then(gives(given)).then(takes(wanted))) == []
    assert warned(Workflow("w").then(gives(given)).then(takes(wanted))) == [f"workflow 'w', step 's': {said}"]
    assert warned(Workflow("w", input=given).then(takes(wanted))) == [f"workflow 'w', step 's': {said}"]
    assert warned(Workflow("w").then(Workflow("n", output=given).then(gives(Any))).then(Workflow("s", input=wanted).then(gives(Any)))) == [
        f"workflow 'w', step 's': {said}"
    ]


def true() -> bool:
    return True


@pytest.mark.parametrize(
    ("flow", "said"),
    [
        (Workflow("w").parallel(gives(Item, "a"), gives(int, "b")).then(takes(Both)), ""),
        (Workflow("w").parallel(gives(Item, "a"), gives(int, "b")).then(takes(Lacks)), "Lacks needs 'c', which dict does not have"),
        (Workflow("w").parallel(gives(Item, "a"), gives(str, "b")).then(takes(Both)), "b: int cannot be made of str"),
        (Workflow("w").parallel(gives(Item, "a"), gives(int, "b"), allow_failure=True).then(takes(Both)), ""),
        (Workflow("w").branch((true, gives(Item, "a")), (true, gives(int, "b"))).then(takes(Both)), ""),
        (Workflow("w").branch((true, gives(Item, "a"))).then(takes(Lacks)), "Lacks needs 'c', which dict does not have"),
        (Workflow("w", input=int).branch((true, takes(Item))), "Item cannot be made of int"),
        (Workflow("w", input=list[Item]).foreach(takes(Item, int, "each")).then(takes(list[int])), ""),
        (Workflow("w", input=list[Item]).foreach(takes(Item, int, "each")).then(takes(list[Item])), "in the list: Item cannot be made of int"),
        (Workflow("w", input=list[int]).foreach(takes(Item)), "for an item Item cannot be made of int"),
        (Workflow("w", input=Item).foreach(takes(Item)), "a foreach needs a list; list cannot be made of Item"),
        (Workflow("w", input=list[int] | None).foreach(takes(int)), ""),
        (Workflow("w", input=int).do_until(takes(int, int), true), ""),
        (Workflow("w", input=int).do_until(takes(int, Item), true), "in its next round int cannot be made of Item"),
        (Workflow("w").map({"a": 1}).then(takes(Lacks)), "Lacks needs 'c', which dict does not have"),
        (Workflow("w").map({"a": 1, "c": 2}).then(takes(Lacks)), ""),
        (Workflow("w").map(function(Any, int)).then(takes(Item)), "Item cannot be made of int"),
        (Workflow("w").map(function(Any, Workflow)).then(takes(Item)), ""),
        (Workflow("w", input=Item).sleep(1).then(takes(Other)), "Other needs 'q', which Item does not have"),
        (Workflow("w", input=Item).then(Step(lambda x: x, id="s", input=Other)), "Other needs 'q', which Item does not have"),
    ],
)  # fmt: skip
def test_types_flow_through_every_entry(flow: Workflow, said: str) -> None:
    assert warned(flow) == ([f"workflow 'w', step 's': {said}"] if said else [])

"""Whether a value of one declared type can ever be one of another, told by their JSON Schemas: what `commit()` warns of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from noria.contract.values import as_dict, as_list
from noria.errors import DefinitionError, choices
from noria.workflow.functions import UserFunction
from noria.workflow.types import Declared

PYTHON = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None", "array": "list", "object": "dict"}
ODD = frozenset({"function-before", "function-wrap", "function-plain"})  # validators that may take what no schema tells
LENIENT = frozenset({"coerce_numbers_to_str", "populate_by_name", "validate_by_name"})


@dataclass(frozen=True, slots=True)
class Shape:
    """A JSON Schema with its definitions; the properties and items of one that was put together are shapes themselves."""

    node: Mapping[str, Any]
    defs: Mapping[str, Any]

    def part(self, node: Any) -> Shape:
        """A schema inside this one."""
        if isinstance(node, Shape):
            return node
        found = as_dict(node) or {}
        while isinstance(reference := found.get("$ref"), str):
            found = as_dict(self.defs.get(reference.rpartition("/")[2])) or {}
        return Shape(found, self.defs)

    @property
    def alternatives(self) -> list[Shape]:
        return [self.part(node) for node in self.node.get("anyOf") or self.node.get("oneOf") or ()]

    @property
    def kind(self) -> str:
        """Its JSON type; empty where it is not told, or not as one."""
        kind = self.node.get("type")
        return kind if isinstance(kind, str) and "allOf" not in self.node else ""

    @property
    def name(self) -> str:
        title = self.node.get("title") if self.kind == "object" else None
        return title or PYTHON.get(self.kind, "it")

    @property
    def properties(self) -> dict[str, Any]:
        return as_dict(self.node.get("properties")) or {}

    @property
    def required(self) -> set[str]:
        return set(as_list(self.node.get("required")) or ())

    @property
    def constants(self) -> list[Any]:
        return [self.node["const"]] if "const" in self.node else as_list(self.node.get("enum")) or []

    @property
    def is_plain(self) -> bool:
        """Nothing is said but the JSON type: no format, no pattern, no choices."""
        return self.node.keys() <= {"type", "title", "description", "default", "minLength", "maxLength", "examples"}


ANYTHING, NOTHING = Shape({}, {}), Shape({"type": "null"}, {})


def offered(declared: Declared | Shape) -> Shape:
    """What a value of the type looks like on its way to the next entry: as it is written, or read (a Decimal is text then, or a number)."""
    if isinstance(declared, Shape):
        return declared
    written, read = declared.schema("serialization"), declared.schema()
    return _shape(written) if written == read else either([_shape(written), _shape(read)])


def accepted(declared: Declared) -> Shape:
    """What the type takes; anything where validators of its own may take more than its schema tells."""
    return ANYTHING if declared.adapter is None or _is_lenient(declared.adapter.core_schema) else _shape(declared.schema())


def returned(function: UserFunction) -> Shape:
    """What a mapping function says that it gives."""
    try:
        return offered(Declared(function.returns, function.name))
    except DefinitionError:  # nothing that is validated: any annotation will do
        return ANYTHING


def members(outputs: Mapping[str, Shape]) -> Shape:
    """A dict of these."""
    return Shape({"type": "object", "properties": outputs}, {})


def either(shapes: Iterable[Shape]) -> Shape:
    """One of these."""
    return Shape({"anyOf": list(shapes)}, {})


def listed(item: Shape) -> Shape:
    """A list of these."""
    return Shape({"type": "array", "items": item}, {})


def item_of(shape: Shape) -> Shape:
    """What is in the list; anything where it is none, or may be one of several."""
    return shape.part(shape.node.get("items"))


def clash(given: Shape, wanted: Shape, known: dict[tuple[int, int], str | None] | None = None) -> str | None:
    """Why no `given` value can be a `wanted` one; None in doubt. `known` answers for pairs inside: types may contain themselves."""
    if not (given.kind or given.alternatives) or not (wanted.kind or wanted.alternatives):
        return None
    known, pair = {} if known is None else known, (id(given.node), id(wanted.node))
    if pair not in known:
        known[pair] = None
        known[pair] = _clash(given, wanted, known)
    return known[pair]


def _clash(given: Shape, wanted: Shape, known: dict[tuple[int, int], str | None]) -> str | None:
    if given.alternatives or wanted.alternatives:  # one that fits is enough
        pairs = [(one, wanted) for one in given.alternatives] or [(given, one) for one in wanted.alternatives]
        found = [clash(one, other, known) for one, other in pairs]
        return found[0] if all(found) else None
    if given.kind != wanted.kind:
        return None if _may_turn(given, wanted) else f"{wanted.name} cannot be made of {given.name}"
    if given.constants and wanted.constants and not any(one in wanted.constants for one in given.constants):
        return f"{_told(wanted.constants)} cannot be {_told(given.constants)}"
    if given.kind == "object":
        return _object(given, wanted, known)
    if given.kind == "array":
        inside = clash(item_of(given), item_of(wanted), known)
        return inside and f"in the list: {inside}"
    return None


def _object(given: Shape, wanted: Shape, known: dict[tuple[int, int], str | None]) -> str | None:
    has, takes = given.properties, wanted.properties
    if not has or given.node.get("additionalProperties"):  # it may have more; a type without fields lets everything through
        return None
    missing = wanted.required - has.keys()
    if missing:
        return f"{wanted.name} needs {choices(sorted(missing))}, which {given.name} does not have"
    odd = given.required - takes.keys()
    if odd and wanted.node.get("additionalProperties") is False:
        return f"{wanted.name} takes no {choices(sorted(odd))}, which {given.name} has"
    for name in sorted(has.keys() & takes.keys()):
        if inside := clash(given.part(has[name]), wanted.part(takes[name]), known):
            return f"{name}: {inside}"
    return None


def _may_turn(given: Shape, wanted: Shape) -> bool:
    """Whether a value of another JSON type may do: texts that stand for something else, or are read as it."""
    match given.kind, wanted.kind:
        case "integer" | "number" | "boolean", "integer" | "number" | "boolean":
            return True
        case "string", "integer" | "number" | "boolean":
            return not given.is_plain
        case "integer" | "number", "string":
            return not wanted.is_plain
        case "object", "array":
            return "prefixItems" in wanted.node  # a named tuple
        case _:
            return False


def _told(constants: list[Any]) -> str:
    return choices([str(one) for one in constants])


def _shape(schema: dict[str, Any]) -> Shape:
    return Shape({}, as_dict(schema.get("$defs")) or {}).part(schema)


def _is_lenient(core: Any) -> bool:
    if isinstance(core, Mapping):
        node = cast(Mapping[str, Any], core)
        odd = node.get("type") in ODD or any(node.get(flag) is True for flag in LENIENT) or as_list(node.get("validation_alias")) is not None
        return odd or any(_is_lenient(part) for part in node.values())
    return isinstance(core, (list, tuple)) and any(_is_lenient(part) for part in cast(list[Any], core))

"""Data asked of a person, by a JSON Schema. Questions go to stderr: stdout is for the outcome."""

from __future__ import annotations

import json
from typing import Any

import typer

from noria.cli.output import err
from noria.contract.values import as_dict, as_list


def ask(schema: dict[str, Any], label: str = "data") -> Any:
    """A value that has the schema's shape: an object field by field, anything unusual as JSON."""
    return _ask(schema, as_dict(schema.get("$defs")) or {}, label, required=True)


def _ask(schema: dict[str, Any], known: dict[str, Any], label: str, *, required: bool) -> Any:
    schema = _resolved(schema, known)
    fields = as_dict(schema.get("properties"))
    if fields is not None:
        needed = as_list(schema.get("required")) or []
        told = {name: _ask(field, known, f"{label}.{name}", required=name in needed) for name, field in fields.items()}
        return {name: value for name, value in told.items() if value is not None or name in needed}
    about = f"{label} ({schema['description']})" if "description" in schema else label
    default = schema.get("default")
    if schema.get("type") == "boolean":
        return typer.confirm(about, default=default, err=True) if required or default is not None else _parsed(about, schema, "")
    shown = "" if default is None else default if isinstance(default, str) else json.dumps(default)
    return _parsed(about, schema, None if required and default is None else shown)


def _parsed(about: str, schema: dict[str, Any], default: str | None) -> Any:
    """Ask until the answer fits. `default`: what an empty answer means; None: there must be one. None for what is left out."""
    options = as_list(schema.get("enum"))
    about = f"{about} {options}" if options else about
    while True:
        text: str = typer.prompt(about, default=default, show_default=bool(default), err=True)
        if text == "":
            return None
        try:
            value = text if schema.get("type") == "string" else json.loads(text)
        except ValueError:
            value = text if options else None
        if value is not None and (not options or value in options) and _fits(value, schema.get("type")):
            return value
        err.print(f"not {schema.get('type') or 'JSON'}: {text}", markup=False, highlight=False)


def _fits(value: Any, kind: Any) -> bool:
    match kind:
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case _:
            return True


def _resolved(schema: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """References followed; of an optional type the type."""
    while "$ref" in schema:
        schema = {**known.get(schema["$ref"].rpartition("/")[2], {}), **{k: v for k, v in schema.items() if k != "$ref"}}
    choices = [c for c in as_list(schema.get("anyOf")) or [] if c.get("type") != "null"]
    if len(choices) == 1:
        return _resolved({**choices[0], **{k: v for k, v in schema.items() if k != "anyOf"}}, known)
    return schema

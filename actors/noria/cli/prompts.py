"""Questions to a person, data by a JSON Schema among them. They go to stderr: stdout is for the outcome."""

from __future__ import annotations

import json
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from noria.cli.output import err
from noria.contract.problems import check_schema
from noria.contract.values import as_dict, as_list
from noria.errors import InvalidInput

LEFT_OUT: Any = object()
YES_OR_NO = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}


def confirm(question: str) -> None:
    """Go on when the answer is yes. Raises typer.Abort."""
    with _answering():
        typer.confirm(question, abort=True, err=True)


def ask(schema: dict[str, Any], label: str = "data") -> Any:
    """A value that has the schema's shape: an object field by field, anything unusual as JSON; what does not fit is asked for
    again. Raises typer.Abort at Ctrl-C and at the end of the input."""
    with _answering():
        return _ask(schema, as_dict(schema.get("$defs")) or {}, label, needed=True)


@contextmanager
def _answering() -> Generator[None, None, None]:
    """Ctrl-C ends a question at once: asyncio's own handler waits for the loop to turn, which a question holds up."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ask(schema: dict[str, Any], known: dict[str, Any], label: str, *, needed: bool) -> Any:
    shape = _resolved(schema, known)
    fields = as_dict(shape.get("properties"))
    if not fields:
        return _value(schema, shape, known, label, needed)
    if not needed and not typer.confirm(f"{label}: give it?", default=False, err=True):
        return LEFT_OUT
    wanted = as_list(shape.get("required")) or []
    while True:
        told = {name: _ask(field, known, f"{label}.{name}", needed=name in wanted) for name, field in fields.items()}
        value = {name: each for name, each in told.items() if each is not LEFT_OUT}
        if _fits(value, schema, known, label):
            return value


def _value(schema: dict[str, Any], shape: dict[str, Any], known: dict[str, Any], label: str, needed: bool) -> Any:
    """Ask until the answer fits. An empty one means the default; what has none and is not needed is left out."""
    options = as_list(shape.get("enum"))
    default: Any = shape.get("default")
    about = f"{label} ({shape['description']})" if "description" in shape else label
    about = f"{about} {options}" if options else about
    shown = "" if default is None else default if isinstance(default, str) else json.dumps(default)
    while True:
        if shape.get("type") == "boolean" and (needed or default is not None):
            return typer.confirm(about, default=None if default is None else bool(default), err=True)
        text: str = typer.prompt(about, default=None if needed and default is None else shown, show_default=bool(shown), err=True)
        if text == "" and not needed:
            return LEFT_OUT
        for n, value in enumerate(_readings(text, shape)):
            if _fits(value, schema, known, label, quiet=n > 0):
                return value


def _readings(text: str, shape: dict[str, Any]) -> Iterator[Any]:
    """What an answer may mean, the likeliest first: text that is asked for is not taken for JSON."""
    kind = shape.get("type")
    if kind == "string":
        yield text
    elif kind == "boolean" and text.lower() in YES_OR_NO:
        yield YES_OR_NO[text.lower()]
    else:
        try:
            yield json.loads(text)
        except ValueError:
            if kind in ("integer", "number") or (kind is None and text[0] in '{["'):
                return err.print(f"not {kind or 'JSON'}: {text}", markup=False, highlight=False)
            yield text
        if kind is None:
            yield text


def _fits(value: Any, schema: dict[str, Any], known: dict[str, Any], label: str, *, quiet: bool = False) -> bool:
    try:
        check_schema(label, {**schema, "$defs": known}, value)
    except InvalidInput as error:
        for problem in () if quiet else error.errors():
            err.print(f"{'.'.join([label, *map(str, problem['loc'])])}: {problem['msg']}", markup=False, highlight=False, soft_wrap=True)
        return False
    return True


def _resolved(schema: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """References followed; of an optional type the type."""
    while "$ref" in schema:
        schema = {**known.get(schema["$ref"].rpartition("/")[2], {}), **{k: v for k, v in schema.items() if k != "$ref"}}
    choices = [c for c in as_list(schema.get("anyOf")) or [] if c.get("type") != "null"]
    if len(choices) == 1:
        return _resolved({**choices[0], **{k: v for k, v in schema.items() if k != "anyOf"}}, known)
    return schema

"""`noria schemas`: what crosses the wire, and what workflows take and give, as JSON Schema."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from noria.actor.load import RECORD_FORMAT
from noria.cli.output import out, print_json
from noria.cli.session import AsJson, Namespace, execute, load_workflow
from noria.contract.export import asyncapi, schema_of, schemas
from noria.machine.state import Actor, StepRecord, Tree
from noria.workflow.builder import Workflow
from noria.workflow.steps import Step

app = typer.Typer(help="JSON Schema and AsyncAPI.", no_args_is_help=True)
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


@app.command()
def export(
    targets: Annotated[list[str] | None, typer.Argument(help="Workflows, as MODULE:ATTR or FILE.py:ATTR; the wire's own messages without.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="A directory; one JSON document on stdout without.")] = None,
    namespace: Namespace = "noria", json: AsJson = False,
) -> None:  # fmt: skip
    """Schemas of workflows (input, output, and of each step), or of every message of Noria with an AsyncAPI document."""

    async def work() -> None:
        flows = [load_workflow(target) for target in targets or ()]
        found = {name: document for flow in flows for name, document in of_workflow(flow).items()} if flows else contract(namespace)
        if to is None:
            return print_json(found)
        for name, document in found.items():
            path = to / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(jsonlib.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if json:
            return print_json([str(to / f"{name}.json") for name in found])
        return out.print(f"{len(found)} documents in {to}", highlight=False)

    execute(work())


def contract(namespace: str = "noria") -> dict[str, Any]:
    """All documents of the contract by name; "asyncapi" is the one that names them all."""
    found = schemas({"records/record": record()})
    return {**found, "asyncapi": asyncapi(namespace, list(found))}


def record() -> dict[str, Any]:
    """A run's record: the tree as `Tree.dump` gives it, actors and held suspensions with their own fields. What a later
    release adds is not required: readers fill it in."""
    new = Tree().dump()
    properties: dict[str, Any] = {name: {"type": TYPES[type(value)]} if value is not None else {} for name, value in new.items()}
    definitions = {"Actor": _closed(Actor), "StepRecord": _closed(StepRecord)}
    definitions["Actor"].pop("$defs", None)
    properties["actors"] = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Actor"}}
    properties["held"] = {"type": "object", "additionalProperties": {"$ref": "#/$defs/StepRecord"}}
    tree = {"type": "object", "properties": properties, "required": ["actors", "base"], "additionalProperties": False}
    known: dict[str, Any] = {"v": {"const": RECORD_FORMAT}, "tree": tree}
    removed = {"type": "object", "properties": {"deleted": {"const": True}}, "required": ["deleted"]}
    whole: dict[str, Any] = {"type": "object", "properties": known, "required": ["v", "tree"], "additionalProperties": False}
    return {"title": "a run's record, or what stays of a deleted one", "anyOf": [whole, removed], "$defs": definitions}


def _closed(kind: type[Actor | StepRecord]) -> dict[str, Any]:
    return {**schema_of(kind), "additionalProperties": False}


def of_workflow(workflow: Workflow) -> dict[str, Any]:
    """"<workflow>/input", "<workflow>/output", and "<workflow>/steps/<step>/…" of each step, nested workflows included."""
    found: dict[str, Any] = {f"{workflow.id}/input": workflow.input_schema(), f"{workflow.id}/output": workflow.output_schema()}
    for name, unit in workflow.units.items():
        if isinstance(unit, Step):
            found.update({f"{workflow.id}/steps/{name}/{part}": schema for part, schema in unit.schemas().items()})
        else:
            found.update({f"{workflow.id}/nested/{part}": schema for part, schema in of_workflow(unit).items()})
    return found

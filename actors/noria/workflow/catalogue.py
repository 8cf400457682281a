"""What the catalogue holds of a workflow (`contract.wire.Catalogued`): enough for whoever knows it by its id only."""

from __future__ import annotations

from typing import Any

from noria.contract.values import dumps
from noria.workflow.builder import Workflow
from noria.workflow.steps import Step


def describe_within(workflow: Workflow, limit: int) -> bytes:
    """The description as JSON, in so many bytes if it fits without the inputs of its steps."""
    described = describe(workflow)
    body = dumps(described)
    return body if len(body) <= limit else dumps({**described, "inputs": {}})


def describe(workflow: Workflow) -> dict[str, Any]:
    """What the catalogue holds of a workflow."""
    return {
        "id": workflow.id,
        "version": workflow.version,
        "description": workflow.description,
        "graph": workflow.graph,
        "steps": sorted(name for name, unit in workflow.units.items() if isinstance(unit, Step)),
        "input": workflow.input_schema(),
        "checks_input": workflow.validate,
        "output": workflow.output_schema(),
        "state": workflow.state_schema(),
        "context": workflow.context.schema(),
        "resume": resume_schemas(workflow),
        "inputs": input_schemas(workflow),
        "retention_seconds": workflow.retention_seconds,
    }


def resume_schemas(workflow: Workflow, above: str = "") -> dict[str, Any]:
    """Schemas of the resume data that steps declare, by dotted path."""
    found: dict[str, Any] = {}
    for name, unit in workflow.units.items():
        if isinstance(unit, Workflow):
            found.update(resume_schemas(unit, f"{above}{name}."))
        elif unit.resume:
            found[above + name] = unit.resume.schema()
    return found


def input_schemas(workflow: Workflow, above: str = "") -> dict[str, Any]:
    """Schemas of the inputs that steps and nested workflows check, by dotted path; of a foreach's, of one item."""
    found: dict[str, Any] = {}
    for name, unit in workflow.units.items() if workflow.validate else ():
        if (isinstance(unit, Step) or unit.validate) and (schema := unit.input_schema()):
            found[above + name] = schema
        if isinstance(unit, Workflow):
            found.update(input_schemas(unit, f"{above}{name}."))
    return found

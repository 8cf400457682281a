"""The graph of a workflow as data and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noria.workflow.entries import BranchEntry, Entry, ForeachEntry, LoopEntry, MapEntry, ParallelEntry, SleepEntry, ThenEntry, Unit
from noria.workflow.steps import Step

if TYPE_CHECKING:
    from noria.workflow.builder import Workflow


def describe(workflow: Workflow) -> dict[str, Any]:
    """JSON data: id, version, entries with kinds and units, nested graphs in place."""
    return {"id": workflow.id, "version": workflow.version, "entries": [_entry(e) for e in workflow.entries]}


def _unit(unit: Unit) -> dict[str, Any]:
    return {"kind": "step", "id": unit.id} if isinstance(unit, Step) else {"kind": "workflow", **describe(unit)}


def _entry(entry: Entry) -> dict[str, Any]:
    match entry:
        case ThenEntry():
            return {"kind": "then", "id": entry.id, "unit": _unit(entry.unit)}
        case ParallelEntry():
            return {"kind": "parallel", "id": entry.id, "units": [_unit(m) for m in entry.members], "allow_failure": entry.allow_failure}
        case BranchEntry():
            arms = [{"condition": c.name, "unit": _unit(m)} for c, m in zip(entry.conditions, entry.members, strict=True)]
            return {"kind": "branch", "id": entry.id, "arms": arms}
        case ForeachEntry():
            limit = entry.concurrency if isinstance(entry.concurrency, int) else entry.concurrency.name
            return {"kind": "foreach", "id": entry.id, "unit": _unit(entry.unit), "concurrency": limit, "placement": entry.placement}
        case LoopEntry():
            kind = "do_until" if entry.until else "do_while"
            return {"kind": kind, "id": entry.id, "unit": _unit(entry.unit), "condition": entry.condition.name}
        case MapEntry():
            return {"kind": "map", "id": entry.id, "keys": sorted(entry.mapping) if isinstance(entry.mapping, dict) else None}
        case SleepEntry():
            fixed = str(entry.duration) if not callable(getattr(entry.duration, "call", None)) else None
            return {"kind": "sleep_until" if entry.until else "sleep", "id": entry.id, "duration": fixed}


def mermaid(graph: dict[str, Any]) -> str:
    """A Mermaid flowchart of what `describe` gives, top down."""
    lines = ["flowchart TD", "  start([start])"]
    last = _draw(graph, "", ["start"], lines, "  ")
    lines.append("  finish([finish])")
    lines += [f"  {node} --> finish" for node in last]
    return "\n".join(lines)


def _draw(graph: dict[str, Any], prefix: str, before: list[str], lines: list[str], pad: str) -> list[str]:
    for entry in graph["entries"]:
        before = _draw_entry(entry, prefix, before, lines, pad)
    return before


def _draw_entry(entry: dict[str, Any], prefix: str, before: list[str], lines: list[str], pad: str) -> list[str]:
    id: str = entry["id"]
    match entry["kind"]:
        case "map":
            return _node(prefix + id, f"[/{id}/]", before, lines, pad)
        case "sleep" | "sleep_until":
            return _node(prefix + id, f"(({id}))", before, lines, pad)
        case "parallel":
            return [end for unit in entry["units"] for end in _draw_unit(unit, prefix, before, lines, pad)]
        case "branch":
            fork = _node(prefix + id, f"{{{id}}}", before, lines, pad)
            return [end for arm in entry["arms"] for end in _draw_unit(arm["unit"], prefix, fork, lines, pad)]
        case kind:
            ends = _draw_unit(entry["unit"], prefix, before, lines, pad)
            again = {"foreach": "for each", "do_until": "until", "do_while": "while"}.get(kind)
            lines.extend(f"{pad}{end} -->|{again}| {_id(prefix + id)}" for end in ends if again is not None)
            return ends


def _draw_unit(unit: dict[str, Any], prefix: str, before: list[str], lines: list[str], pad: str) -> list[str]:
    id: str = unit["id"]
    if unit["kind"] == "step":
        return _node(prefix + id, f"[{id}]", before, lines, pad)
    door = _node(prefix + id, f"[[{id}]]", before, lines, pad)
    lines.append(f"{pad}subgraph {_id(prefix + id)}_inside [{id}]")
    ends = _draw(unit, f"{prefix}{id}.", door, lines, pad + "  ")
    lines.append(f"{pad}end")
    return ends


def _node(name: str, shape: str, before: list[str], lines: list[str], pad: str) -> list[str]:
    node = _id(name)
    lines.append(f"{pad}{node}{shape}")
    lines.extend(f"{pad}{b} --> {node}" for b in before)
    return [node]


def _id(name: str) -> str:
    """A node's name: distinct for distinct ids, and never `start` or `finish`."""
    return "n_" + name.replace("_", "_0").replace("-", "_1").replace(".", "_2")

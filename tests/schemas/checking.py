"""Validators for the contract's documents, as files refer to each other."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker
from referencing import Registry, Resource

from noria.cli.schemas import contract

HERE = Path(__file__).parent
ROOT = HERE.parents[1] / "schemas"
DOCUMENTS: dict[str, Any] = json.loads(json.dumps(contract()))
BASE = "file:///"
REGISTRY: Any = Registry().with_resources([
    (f"{BASE}{name}.json", Resource.from_contents({**d, "$id": f"{BASE}{name}.json"})) for name, d in DOCUMENTS.items() if name != "asyncapi"
])  # fmt: skip
CLOUDEVENTS = Draft7Validator(json.loads((HERE / "cloudevents-1.0.json").read_text()), format_checker=FormatChecker())
ASYNCAPI = Draft7Validator(json.loads(gzip.decompress((HERE / "asyncapi-3.0.0.json.gz").read_bytes())), format_checker=FormatChecker())


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"{BASE}{name}.json"}, registry=REGISTRY, format_checker=FormatChecker())


def problems(name: str, value: Any) -> list[str]:
    return [f"{name}: {'.'.join(map(str, e.absolute_path))}: {e.message[:300]}" for e in validator(name).iter_errors(value)]


def name_of(event: dict[str, Any]) -> str:
    """The schema of an event: its own, or that of sealed or custom ones."""
    if "sealed" in ((event.get("data") or {}).get("noria") or {} if isinstance(event.get("data"), dict) else {}):
        return "events/sealed"
    name = f"events/{event['type'].removeprefix('io.noria.').removesuffix('.v1')}"
    return name if name in DOCUMENTS else "events/custom"


def problems_of_event(event: dict[str, Any]) -> list[str]:
    return [*problems(name_of(event), event), *(f"not a CloudEvent: {e.message}" for e in CLOUDEVENTS.iter_errors(event))]

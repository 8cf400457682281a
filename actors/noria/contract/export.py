"""The language-neutral contract: a JSON Schema per message, and an AsyncAPI 3 document of all subjects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter

from noria.contract import calls, commands, control, schedules, wire
from noria.contract.channels import CHANNELS, Channel
from noria.contract.envelopes import EVENT_PREFIX, EVENT_SUFFIX
from noria.contract.subjects import Subjects
from noria.contract.values import SEALED_FORMAT, as_dict

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


def schemas(more: Mapping[str, Any] | None = None) -> dict[str, Schema]:
    """Every schema by name ("events/workflow-start"). `more` are types of layers above: name -> type or finished schema."""
    found: dict[str, Schema] = {f"commands/{kind}": _command(kind, made) for kind, made in commands.KINDS.items()}
    found.update({f"events/{type}": _event(type, data) for type, data in {**wire.LIVE, **wire.FACTS}.items()})
    found["events/custom"] = _custom()
    found.update(_sealed())
    batch: Schema = {"anyOf": [{"$ref": f"{type}.json"} for type in wire.FACTS]}
    found["events/batch"] = {"title": "facts of one append", "type": "array", "minItems": 2, "items": batch}
    models: dict[str, Any] = {
        "cloudevent": wire.CloudEvent, "news/rest": wire.Rest, "records/summary": wire.Summary, "records/slip": wire.Slip,
        "records/workflow": wire.Catalogued, **(more or {}),
    }  # fmt: skip
    models |= {f"calls/{kind}": model for kind, model in calls.KINDS.items()}
    models |= {f"api/{name}": model for name, model in {**control.VERBS, **control.ANSWERS}.items()}
    found.update({name: as_dict(model) or schema_of(model) for name, model in models.items()})
    kept = (("schedule", schedules.Definition), ("schedule-past", schedules.Past), ("schedule-declarations", schedules.Declarations))
    for name, kind in ((f"records/{name}", kind) for name, kind in kept):
        found[name] = _versioned(schema_of(kind), schedules.FORMAT)
    return {name: {"$schema": DIALECT, **found[name]} for name in sorted(found)}


def schema_of(kind: Any) -> Schema:
    """The JSON Schema of a model, dataclass or any other type."""
    return TypeAdapter(kind).json_schema(by_alias=True)


def _versioned(schema: Schema, format: int) -> Schema:
    """With the format's number, and all fields: encoders leave none out."""
    properties = {"v": {"const": format}, **schema["properties"]}
    return {**schema, "properties": properties, "required": list(properties), "additionalProperties": False}


def _command(kind: str, made: type[commands.Command]) -> Schema:
    schema, later = schema_of(made), {name for name, first in commands.FIELDS[made] if not first}
    found = _versioned({**schema, "properties": {"kind": {"const": kind}, **schema["properties"]}}, commands.FORMAT)
    if "shared" in later:
        found["properties"]["v"] = {"enum": [commands.FORMAT, commands.SHARING_FORMAT]}
    return {**found, "required": [name for name in found["required"] if name not in later]}


def _event(type: str, data: type[BaseModel]) -> Schema:
    """A CloudEvent whose data is of this model. The model's own definitions move to the event's."""
    inner = schema_of(data)
    definitions = inner.pop("$defs", {})
    event = _envelope({"const": f"{EVENT_PREFIX}{type}{EVENT_SUFFIX}"}, inner)
    return {**event, "title": type, "$defs": definitions} if definitions else {**event, "title": type}


def _custom() -> Schema:
    """An event of a type that `ctx.emit` made up."""
    event = _envelope({"type": "string", "pattern": f"^{re.escape(EVENT_PREFIX)}.+{re.escape(EVENT_SUFFIX)}$"}, {})
    return {**event, "title": "what ctx.emit sends"}


def _sealed() -> dict[str, Schema]:
    """What a codec makes of bodies: fields that stay readable, and the rest in one."""
    text: Schema = {"type": "string", "contentEncoding": "base64"}

    def closed(title: str, **shown: Schema) -> Schema:
        properties = {"v": {"const": SEALED_FORMAT}, **shown, "sealed": text}
        required = [name for name in properties if name != "traceparent"]
        return {"title": title, "type": "object", "properties": properties, "required": required, "additionalProperties": False}

    known: Schema = {"kind": {"enum": list(commands.KINDS)}, "id": {"type": "string"}, "at": {"type": "number"}}
    traceparent: Schema = {"type": ["string", "null"]}
    call = schema_of(calls.StepCall)["properties"]
    schedule = {name: kind for name, kind in schema_of(schedules.Definition)["properties"].items() if name != "input"}
    told: Schema = {"enum": [kind for kind in calls.KINDS if kind not in ("call", "parcel", "heartbeat")]}
    reply = closed("what a step handler sends, sealed", status=told, type=told)
    data = {"type": "object", "properties": {"noria": closed("sealed data")}, "required": ["noria"], "additionalProperties": False}
    return {
        "events/sealed": {**_custom(), "properties": {**_custom()["properties"], "data": data}, "title": "an event of any type, sealed"},
        "commands/sealed": closed("a command of any kind, sealed", **known, traceparent=traceparent),
        "calls/sealed": closed("a step call, sealed", **{name: call[name] for name in calls.SHOWN_CALL}),
        "calls/sealed-reply": {**reply, "required": ["v", "sealed"]},
        "records/sealed": closed("a record, sealed"), "records/sealed-schedule": closed("a schedule, sealed", **schedule),
        "news/sealed": closed("news, sealed", **{"in": {"type": "integer"}}),
    }  # fmt: skip


def _envelope(type: Schema, data: Schema) -> Schema:
    text: Schema = {"type": "string", "minLength": 1}
    properties: Schema = {
        "specversion": {"const": "1.0"}, "id": text, "source": {**text, "pattern": "^/[^/]+/[^/]+$"}, "type": type,
        "subject": {**text, "description": "<run>, or <run>/<path>"}, "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"const": "application/json"}, "data": data, "step": text,
        "traceparent": {"type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
    }  # fmt: skip
    required = [name for name in properties if name not in ("step", "traceparent")]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def asyncapi(namespace: str, names: list[str]) -> dict[str, Any]:
    """All subjects of a namespace. `names` are those of `schemas`; messages refer to their files."""
    subjects = Subjects(namespace)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Noria", "version": "1", "description": f"Durable workflows on NATS: the subjects of namespace {namespace}."},
        "defaultContentType": "application/json",
        "servers": {"nats": {"host": "localhost:4222", "protocol": "nats"}},
        "channels": {c.name: _channel(c, subjects, names) for c in CHANNELS},
        "operations": {key: operation for c in CHANNELS for key, operation in _operations(c)},
        "components": {"messages": {_key(name): _message(name) for name in [*names, "opaque"]}},
    }


def _channel(channel: Channel, subjects: Subjects, names: list[str]) -> dict[str, Any]:
    found = [name for wanted in channel.messages for name in names if name == wanted or (wanted.endswith("/") and name.startswith(wanted))]
    where = f"Stored in {channel.store}." if channel.store else "Core NATS, not stored."
    return {
        "address": channel.address_in(subjects),
        "description": f"{channel.meaning[0].upper()}{channel.meaning[1:]}. {where}",
        "parameters": {p: {"description": PARAMETERS.get(p, p)} for p in channel.parameters},
        "messages": {_key(n): {"$ref": f"#/components/messages/{_key(n)}"} for n in found or ["opaque"]},
    }


PARAMETERS = {
    "path": "The actor's place in the run's tree, `_` at its end; several tokens.", "workflow": "Workflow id.", "run": "Run id.",
    "name": "Digest, number of chunks, number of the chunk; several tokens.",
}  # fmt: skip


def _operations(channel: Channel) -> list[tuple[str, dict[str, Any]]]:
    """As a worker sees it."""
    ways = [("send", "worker" in channel.senders), ("receive", "worker" in channel.listeners or channel.store in ("runs", "triggers"))]
    return [(f"{way}-{channel.name}", {"action": way, "channel": {"$ref": f"#/channels/{channel.name}"}}) for way, done in ways if done]


def _message(name: str) -> dict[str, Any]:
    if name == "opaque":
        return {"name": name, "contentType": "application/octet-stream", "payload": {}}
    event = "application/cloudevents-batch+json" if name == "events/batch" else "application/cloudevents+json"
    kind = event if name.startswith(("events/", "cloudevent")) else "application/json"
    return {"name": name, "contentType": kind, "payload": {"$ref": f"{name}.json"}}


def _key(name: str) -> str:
    return name.replace("/", "-")

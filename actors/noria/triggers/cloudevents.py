"""CloudEvents in NATS messages: structured mode by content type, binary mode by `ce-` headers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast
from urllib.parse import unquote

from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from noria.contract.values import as_dict, as_list, dumps, loads
from noria.errors import InvalidInput

STRUCTURED = "application/cloudevents"
REQUIRED = ("id", "source", "type", "specversion")
OPTIONAL = ("subject", "time", "dataschema", "datacontenttype")


class Event(CloudEvent):
    """A CloudEvent whose attributes and extensions are there by name, as `event.type` or `event["type"]`; its payload is
    `data`. A standard attribute that it does not have is None, another one an AttributeError or KeyError."""

    @property
    def data(self) -> Any:
        return self.get_data()

    def __getitem__(self, name: str) -> Any:
        return self.data if name == "data" else self.get_attributes()[name]

    def __contains__(self, name: object) -> bool:
        return name == "data" or name in self.get_attributes()

    def get(self, name: str, default: Any = None) -> Any:
        return self.data if name == "data" else self.get_attributes().get(name, default)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        attributes: dict[str, Any] = self.get_attributes()
        if name not in attributes and name not in OPTIONAL:
            raise AttributeError(f"the event has no attribute {name!r}; it has {', '.join(sorted(attributes))}")
        return attributes.get(name)


def parse(headers: Mapping[str, str], body: bytes) -> Event:
    """The event of a message; header names in any case. Raises InvalidInput that says what is wrong."""
    lower = {k.lower(): v for k, v in headers.items()}
    content_type = lower.get("content-type", "").strip().lower()
    try:
        if content_type.startswith(STRUCTURED) or not any(k.startswith("ce-") for k in lower):
            if content_type.startswith(f"{STRUCTURED}-batch"):
                raise InvalidInput("a batch of CloudEvents is not accepted here: publish them one by one")
            _check_required(loads(body))
            return cast(Event, JSONFormat().read(Event, body))
        return _binary(lower, content_type, body)
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput(f"not a CloudEvent: {type(error).__name__}: {_words(error)}") from error


def parse_all(headers: Mapping[str, str], body: bytes) -> list[Event]:
    """The event of a message, or all events of a batch. Raises InvalidInput that says what is wrong."""
    lower = {k.lower(): v for k, v in headers.items()}
    if not lower.get("content-type", "").strip().lower().startswith(f"{STRUCTURED}-batch"):
        return [parse(lower, body)]
    try:
        members = as_list(loads(body))
    except ValueError as error:
        raise InvalidInput(f"not a batch of CloudEvents: {error}") from error
    if members is None:
        raise InvalidInput("not a batch of CloudEvents: a JSON array is expected")
    return [parse({"content-type": f"{STRUCTURED}+json"}, dumps(member)) for member in members]


def _binary(headers: Mapping[str, str], content_type: str, body: bytes) -> Event:
    attributes: dict[str, Any] = {k[3:]: unquote(v) for k, v in headers.items() if k.startswith("ce-")}
    _check_required(attributes)
    if content_type:
        attributes["datacontenttype"] = headers["content-type"].strip()
    if "time" in attributes:
        attributes["time"] = datetime.fromisoformat(attributes["time"])
    data: Any = None
    if body:
        data = loads(body) if not content_type or "json" in content_type else body.decode() if content_type.startswith("text/") else body
    return Event(attributes, data)


def _check_required(attributes: Any) -> None:
    # The SDK makes up an id where there is none: another one for each delivery, so each would start a run.
    if not isinstance(attributes, dict):
        raise InvalidInput("not a CloudEvent: a JSON object is expected")
    given = cast("dict[str, Any]", attributes)
    missing = [name for name in REQUIRED if not given.get(name)]
    if missing:
        raise InvalidInput(f"not a CloudEvent: without the required {', '.join(missing)}")


def _words(error: Exception) -> str:
    found = as_dict(getattr(error, "errors", None))
    return "; ".join(f"{k}: {', '.join(map(str, v))}" for k, v in found.items()) if found is not None else str(error)

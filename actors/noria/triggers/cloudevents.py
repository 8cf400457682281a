"""CloudEvents in NATS messages: structured mode by content type, binary mode by `ce-` headers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast
from urllib.parse import unquote

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from noria.contract.values import as_dict, loads
from noria.errors import InvalidInput

STRUCTURED = "application/cloudevents"
REQUIRED = ("id", "source", "type", "specversion")


def parse(headers: Mapping[str, str], body: bytes) -> BaseCloudEvent:
    """The event of a message; header names in any case. Raises InvalidInput that says what is wrong."""
    lower = {k.lower(): v for k, v in headers.items()}
    content_type = lower.get("content-type", "").strip().lower()
    try:
        if content_type.startswith(STRUCTURED) or not any(k.startswith("ce-") for k in lower):
            if content_type.startswith(f"{STRUCTURED}-batch"):
                raise InvalidInput("a batch of CloudEvents is not accepted here: publish them one by one")
            _check_required(loads(body))
            return JSONFormat().read(None, body)
        return _binary(lower, content_type, body)
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput(f"not a CloudEvent: {type(error).__name__}: {_words(error)}") from error


def _binary(headers: Mapping[str, str], content_type: str, body: bytes) -> BaseCloudEvent:
    attributes: dict[str, Any] = {k[3:]: unquote(v) for k, v in headers.items() if k.startswith("ce-")}
    _check_required(attributes)
    if content_type:
        attributes["datacontenttype"] = headers["content-type"].strip()
    if "time" in attributes:
        attributes["time"] = datetime.fromisoformat(attributes["time"])
    data: Any = None
    if body:
        data = loads(body) if not content_type or "json" in content_type else body.decode() if content_type.startswith("text/") else body
    return CloudEvent(attributes, data)


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

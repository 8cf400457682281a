"""CloudEvents out of NATS messages."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from noria import InvalidInput
from noria.triggers.cloudevents import parse

EVENT: dict[str, Any] = {"specversion": "1.0", "id": "e1", "source": "/shop", "type": "placed"}
BINARY = {f"ce-{name}": value for name, value in EVENT.items()}
STRUCTURED = {"content-type": "application/cloudevents+json"}


def structured(**more: Any) -> bytes:
    return json.dumps({**EVENT, **more}).encode()


@pytest.mark.parametrize("name", ["content-type", "Content-Type", "CONTENT-TYPE"])
@pytest.mark.parametrize("value", ["application/cloudevents+json", "application/cloudevents+json; charset=utf-8", "Application/CloudEvents+JSON"])
def test_structured_mode_by_content_type_in_any_case(name: str, value: str) -> None:
    event = parse({name: value}, structured(data={"n": 1}, runid="mine", resourceid="r", traceparent="00-1-2-01"))
    assert (event.get_id(), event.get_source(), event.get_data()) == ("e1", "/shop", {"n": 1})
    extensions = event.get_attributes()
    assert (extensions["runid"], extensions["resourceid"], extensions["traceparent"]) == ("mine", "r", "00-1-2-01")


def test_structured_mode_wins_over_binary_headers() -> None:
    assert parse({**STRUCTURED, "ce-id": "other"}, structured()).get_id() == "e1"


def test_structured_mode_without_headers() -> None:
    assert parse({}, structured(data=[1])).get_data() == [1]


def test_structured_mode_with_base64_data() -> None:
    assert parse(STRUCTURED, structured(data_base64=base64.b64encode(b"\x00\xff").decode())).get_data() == b"\x00\xff"


@pytest.mark.parametrize("data", [None, 0, False, "", [], {}, "text", [1, {"a": None}]])
def test_structured_data_stays_as_it_is(data: Any) -> None:
    assert parse(STRUCTURED, structured(data=data)).get_data() == data


@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
def test_binary_mode_with_header_names_in_any_case(case: Any) -> None:
    event = parse({case(k): v for k, v in {**BINARY, "content-type": "application/json", "ce-runid": "mine"}.items()}, b'{"n":1}')
    assert (event.get_id(), event.get_data(), event.get_attributes()["runid"]) == ("e1", {"n": 1}, "mine")


def test_binary_attributes_are_percent_decoded() -> None:
    event = parse({**BINARY, "ce-source": "/caf%C3%A9", "ce-subject": "100%25"}, b"")
    assert (event.get_source(), event.get_subject()) == ("/café", "100%")


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("application/json", b"[1]", [1]),
        ("application/vnd.shop+json; charset=utf-8", b'{"a":1}', {"a": 1}),
        ("", b'{"a":1}', {"a": 1}),
        ("text/plain", "é".encode(), "é"),
        ("application/octet-stream", b"\x00\xff", b"\x00\xff"),
        ("application/json", b"", None),
    ],
)
def test_binary_data_by_content_type(content_type: str, body: bytes, data: Any) -> None:
    headers = {**BINARY, "content-type": content_type} if content_type else BINARY
    assert parse(headers, body).get_data() == data


def test_binary_time_and_content_type_are_kept() -> None:
    event = parse({**BINARY, "ce-time": "2026-01-02T03:04:05Z", "Content-Type": "application/vnd.Shop+json"}, b"1")
    time = event.get_time()
    assert time is not None and time.isoformat() == "2026-01-02T03:04:05+00:00"
    assert event.get_datacontenttype() == "application/vnd.Shop+json"


@pytest.mark.parametrize("missing", ["id", "source", "type", "specversion"])
@pytest.mark.parametrize("empty", [False, True])
def test_a_missing_required_attribute_is_named_and_never_made_up(missing: str, empty: bool) -> None:
    left = {**EVENT, missing: ""} if empty else {k: v for k, v in EVENT.items() if k != missing}
    for headers, body in ((STRUCTURED, json.dumps(left).encode()), ({f"ce-{k}": v for k, v in left.items()}, b"{}")):
        with pytest.raises(InvalidInput, match=f"required.*{missing}"):
            parse(headers, body)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (STRUCTURED, b"\xff\x00 not json"),
        (STRUCTURED, b""),
        (STRUCTURED, b"[]"),
        (STRUCTURED, b'"text"'),
        (STRUCTURED, structured(time="yesterday")),
        (STRUCTURED, structured(id=5)),
        ({**BINARY, "ce-time": "yesterday"}, b"{}"),
        ({**BINARY, "content-type": "application/json"}, b"{"),
        ({**BINARY, "content-type": "text/plain"}, b"\xff"),
    ],
)
def test_what_is_no_event_is_refused_in_words(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a CloudEvent"):
        parse(headers, body)


def test_a_batch_is_refused() -> None:
    with pytest.raises(InvalidInput, match="one by one"):
        parse({"content-type": "application/cloudevents-batch+json"}, b"[]")

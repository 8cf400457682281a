"""What is sealed of each kind of body. Ids, kinds, times and sequences stay readable, what users gave does not.

A sealed body has a format number that no reader knows: a process without the codec steps back from it as from a newer
release, instead of passing it over.
"""

from __future__ import annotations

import base64
from typing import Any

from noria.contract.values import SEALED_FORMAT, SLIP, as_dict, as_list, dumps, loads
from noria.errors import NoriaError
from noria.ports import Codec, RunKey

BLOB = b"\x00noria-sealed\x00"
COMMAND = ("v", "kind", "id", "at", "traceparent")
NEWS = ("in",)
SCHEDULE = ("cron", "timezone", "overlap", "build", "paused")


class Sealing:
    """Bodies sealed and opened; what is not sealed opens to itself, so that a namespace can change over."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def blob(self, run: RunKey, data: bytes) -> bytes:
        return BLOB + self._codec.seal(data, _context(run))

    def open_blob(self, run: RunKey, data: bytes) -> bytes:
        return self._codec.open(data[len(BLOB) :], _context(run)) if data.startswith(BLOB) else data

    def fields(self, run: RunKey, body: bytes, shown: tuple[str, ...]) -> bytes:
        """A JSON object whose fields are sealed but for those `shown`."""
        if body.startswith(SLIP):
            return body
        data: dict[str, Any] = loads(body)
        known = {name: data[name] for name in shown if name in data}
        return dumps({"v": SEALED_FORMAT, **{k: v for k, v in known.items() if k != "v"}, "sealed": self._text(run, data)})

    def open_fields(self, run: RunKey, body: bytes) -> bytes:
        data = _looked_at(body)
        if as_dict(data) is None or data.get("v") != SEALED_FORMAT:
            return body
        return self._opened(run, data.get("sealed"))

    def events(self, run: RunKey, body: bytes) -> bytes:
        """Events whose data is sealed: still CloudEvents."""
        if body.startswith(SLIP):
            return body
        found = loads(body)
        for event in as_list(found) or [found]:
            event["data"] = {"noria": {"v": SEALED_FORMAT, "sealed": self._text(run, event["data"])}}
        return dumps(found)

    def open_events(self, run: RunKey, body: bytes) -> bytes:
        found, changed = _looked_at(body), False
        for event in as_list(found) or [found]:
            meta = as_dict((as_dict((as_dict(event) or {}).get("data")) or {}).get("noria")) or {}
            if meta.get("v") == SEALED_FORMAT:
                event["data"], changed = loads(self._opened(run, meta.get("sealed"))), True
        return dumps(found) if changed else body

    def _text(self, run: RunKey, data: Any) -> str:
        return base64.b64encode(self._codec.seal(dumps(data), _context(run))).decode()

    def _opened(self, run: RunKey, text: Any) -> bytes:
        try:
            data = base64.b64decode(text, validate=True)
        except (ValueError, TypeError) as error:
            raise NoriaError("a sealed value does not open: it is no base64") from error
        return self._codec.open(data, _context(run))


def _looked_at(body: bytes) -> Any:
    """The JSON of what may be sealed; None of what is not."""
    try:
        return loads(body) if b'"sealed"' in body else None
    except ValueError:
        return None


def _context(run: RunKey) -> bytes:
    return f"{run.workflow}/{run.run}".encode()

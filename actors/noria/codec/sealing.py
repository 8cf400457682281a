"""What is sealed of each kind of body. Ids, kinds, times and sequences stay readable, what users gave does not.

A sealed body has a format number that no reader knows: a process without the codec steps back from it as from a newer
release, instead of passing it over.
"""

from __future__ import annotations

import base64
from typing import Any

from noria.contract.values import SEALED_FORMAT, as_dict, as_list, dumps, loads
from noria.ports import Codec, RunKey

BLOB = b"\x00noria-sealed\x00"
SLIP = b'{"noria_blob":'
COMMAND = ("v", "kind", "id", "at", "traceparent")
NEWS = ("in",)


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
        if b'"sealed"' not in body:
            return body
        data = as_dict(loads(body)) or {}
        return self._opened(run, data["sealed"]) if data.get("v") == SEALED_FORMAT else body

    def events(self, run: RunKey, body: bytes) -> bytes:
        """Events whose data is sealed: still CloudEvents."""
        if body.startswith(SLIP):
            return body
        found = loads(body)
        for event in as_list(found) or [found]:
            event["data"] = {"noria": {"v": SEALED_FORMAT, "sealed": self._text(run, event["data"])}}
        return dumps(found)

    def open_events(self, run: RunKey, body: bytes) -> bytes:
        if b'"sealed"' not in body:
            return body
        found = loads(body)
        for event in as_list(found) or [found]:
            meta = as_dict((as_dict(event.get("data")) or {}).get("noria")) or {}
            if meta.get("v") == SEALED_FORMAT:
                event["data"] = loads(self._opened(run, meta["sealed"]))
        return dumps(found)

    def _text(self, run: RunKey, data: Any) -> str:
        return base64.b64encode(self._codec.seal(dumps(data), _context(run))).decode()

    def _opened(self, run: RunKey, text: str) -> bytes:
        return self._codec.open(base64.b64decode(text), _context(run))


def _context(run: RunKey) -> bytes:
    return f"{run.workflow}/{run.run}".encode()

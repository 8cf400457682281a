"""nats-py's client with a reading loop of our own.

Messages of the broker layer's subscriptions are handed on where they are read, and their headers are parsed only when
somebody looks. nats-py makes a queue hop, a Msg and a dict of headers for each of them: half of the CPU of a client
that reads. All else (connecting, reconnecting, subscriptions of others) is nats-py's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from nats.aio.client import Client
from nats.errors import Error
from nats.protocol.parser import Parser

log = logging.getLogger("noria.broker")
LINE_END = b"\r\n"
M, H = b"MH"  # first bytes of MSG and HMSG
VERSION = len("NATS/1.0")
STATUS, DESCRIPTION = ":status", ":description"  # what the server says inline; no header of a sender's can be named so


class Incoming:
    """A message as it came. `headers` by name, with STATUS and DESCRIPTION where the server set them inline."""

    __slots__ = ("_headers", "_raw", "data", "reply", "subject")

    def __init__(self, subject: str, reply: str, data: bytes, raw: bytes | None = None, headers: dict[str, str] | None = None) -> None:
        self.subject, self.reply, self.data = subject, reply, data
        self._raw, self._headers = raw, headers

    @property
    def headers(self) -> dict[str, str]:
        if self._headers is None:
            self._headers = {} if self._raw is None else _parsed(self._raw)
        return self._headers

    def carries(self, line: bytes) -> bool:
        """Whether a header line, with its line end, came with it."""
        return self._raw is not None and line in self._raw


def _parsed(raw: bytes) -> dict[str, str]:
    first, *lines = raw.decode("utf-8", "replace").split("\r\n")
    headers: dict[str, str] = {}
    if len(first) > VERSION:
        headers[STATUS], _, headers[DESCRIPTION] = first[VERSION:].strip().partition(" ")
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return headers


class WireClient(Client):
    """nats-py's client; `readers` by subscription id get their messages at once."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: dict[int, Callable[[Incoming], None]] = {}
        self._ps = _Reading(self)

    async def flush(self, timeout: int = 10) -> None:
        """As nats-py's, whose asyncio.wait_for loses a cancel that comes together with the answer (Python 3.11)."""
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        await super().flush(timeout)
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError

    async def _process_err(self, err_msg: str) -> None:
        """As nats-py's, which closes for good at most errors, a revoked user's say: the server cuts the connection itself where
        it means to, and may let us in again later."""
        error = Error(f"nats: {err_msg.strip(chr(39))}")
        self._err = error
        await cast(Any, self)._error_cb(error)

    async def _process_pong(self) -> None:
        """As nats-py's, which ends the connection at the answer to a flush that nobody awaits any more."""
        asked: list[asyncio.Future[bool]] = cast(Any, self)._pongs
        if asked and asked[0].done():
            asked[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()


class _Reading(Parser):
    """The protocol of what comes in: messages here, everything else by nats-py, line by line."""

    def __init__(self, client: Any) -> None:
        self._client = client
        super().__init__(client)  # pyright: ignore[reportUnknownMemberType]

    def reset(self) -> None:
        super().reset()
        self._rest = b""

    async def parse(self, data: bytes = b"") -> None:
        readers: dict[int, Callable[[Incoming], None]] = self._client.readers
        if self._rest:
            data = self._rest + data
        at = 0
        while (end := data.find(LINE_END, at)) >= 0:
            kind = data[at]
            if kind not in (M, H):
                line, at = data[at : end + 2], end + 2
                await super().parse(line)
                continue
            words = data[at:end].split()
            begin = end + 2
            stop = begin + int(words[-1])
            if len(data) < stop + 2:
                break
            body = begin if kind == M else begin + int(words[-2])
            raw = data[begin:body] if kind == H else None
            reply = words[3] if len(words) == (5 if kind == M else 6) else b""
            at = stop + 2
            reader = readers.get(int(words[2]))
            if reader is None:
                await self._client._process_msg(int(words[2]), words[1], reply, data[body:stop], raw)
            else:
                try:
                    reader(Incoming(words[1].decode(), reply.decode(), data[body:stop], raw))
                except Exception:
                    log.exception("a message on %s could not be handled", words[1].decode(errors="replace"))
        self._rest = data[at:]

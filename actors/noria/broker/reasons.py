"""Why the server does not do what was asked, in words that name the limit or the stream, and what helps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from noria.errors import NoriaError

if TYPE_CHECKING:
    from noria.broker.connection import Connection

NO_STREAM = 10059
ACCOUNT_FULL, STREAM_FULL = 10002, 10077
FULL = (ACCOUNT_FULL, STREAM_FULL, 10023, 10028, 10047)  # no room: for this account, in this stream, on this server
MAKE_ROOM = "raise it, or delete runs that have ended; what waits goes on by itself"


async def why_silent(connection: Connection, stream: str, words: str) -> str:
    """The words, or that there is nothing that could answer: somebody deleted the stream."""
    info = await _ask(connection, f"STREAM.INFO.{stream}")
    missing = info.get("error", {}).get("err_code") == NO_STREAM
    return f"{words}: there is no stream {stream!r} any more: noria infra apply makes it anew" if missing else words


async def why_full(connection: Connection, stream: str, code: int) -> str:
    """Which limit is reached, and how much it is, where this user may see it."""
    if code == STREAM_FULL:
        info = await _ask(connection, f"STREAM.INFO.{stream}")
        limit, used = info.get("config", {}).get("max_bytes", -1), info.get("state", {}).get("bytes", 0)
        return f"stream {stream!r} is full, {used} bytes of max_bytes {limit}: {MAKE_ROOM}"
    if code == ACCOUNT_FULL:
        info = await _ask(connection, "INFO")
        limit, used = info.get("limits", {}).get("max_storage", -1), info.get("storage", 0)
        return f"the JetStream storage of this account is full, {used} bytes of max_file {limit}: {MAKE_ROOM}"
    return f"the JetStream storage of the server is full (max_file_store in its configuration, or its disk): {MAKE_ROOM}"


async def _ask(connection: Connection, subject: str) -> dict[str, Any]:
    """Once; empty when nobody says."""
    try:
        return orjson.loads((await connection.request(f"{connection.js}.{subject}")).data)
    except (NoriaError, ValueError):
        return {}

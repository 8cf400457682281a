"""Batched reads of a stream, for all ports that read."""

from __future__ import annotations

import asyncio
import base64
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from noria.broker.reasons import why_silent
from noria.broker.wire import STATUS, Incoming
from noria.clock import monotonic
from noria.errors import BrokerUnavailable, NoriaError
from noria.limits import ANSWER_SECONDS, PATIENCE_SECONDS
from noria.ports import deadline

if TYPE_CHECKING:
    from noria.broker.connection import Connection

BATCH = 1000


class Message(NamedTuple):
    """A stored message."""

    sequence: int
    subject: str
    body: bytes
    time: float
    headers: dict[str, str]


def message(msg: Incoming) -> Message:
    headers: dict[str, str] = msg.headers
    stamp = headers.get("Nats-Time-Stamp", "")
    return Message(int(headers["Nats-Sequence"]), headers["Nats-Subject"], msg.data, epoch(stamp), headers)


def delivered(reply: str) -> tuple[int, int, int, float]:
    """(delivery count, stream sequence, consumer sequence, epoch seconds) of a delivery's reply subject:
    $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<count>.<stream seq>.<consumer seq>.<time>.<pending>[.<token>]"""
    tokens = reply.split(".")
    at = 4 if len(tokens) < 11 else 6
    return int(tokens[at]), int(tokens[at + 1]), int(tokens[at + 2]), int(tokens[at + 3]) / 1e9


def epoch(stamp: str) -> float:
    """Epoch seconds of a server's time stamp."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(whole + "+00:00").timestamp() + float(f"0.{fraction or 0}") if whole else 0.0


async def last(connection: Connection, stream: str, subject: str) -> Message | None:
    """The last message of an exact subject."""
    end = min(monotonic() + PATIENCE_SECONDS, deadline.get())
    while True:
        try:
            msg = await connection.request(f"{connection.js}.DIRECT.GET.{stream}.{subject}")
            status = msg.headers.get(STATUS)
            if status is None:
                return message(msg)
            if status == "404":
                return None
        except BrokerUnavailable:
            pass
        if monotonic() > end:
            raise BrokerUnavailable(await why_silent(connection, stream, f"{connection.no_answer} about {subject}"))
        await asyncio.sleep(0.1)


async def last_of_leader(connection: Connection, stream: str, subject: str) -> bytes | None:
    """The body of the last message of an exact subject; no replica that lags behind answers. Raises NotPermitted."""
    found = (await connection.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})).get("message")
    return None if found is None else base64.b64decode(found.get("data", ""))


async def read(connection: Connection, stream: str, subject: str, after: int = 0, limit: int | None = None) -> list[Message]:
    """All messages of a subject (wildcards allowed) with a sequence above `after`, in order; at most `limit` of them."""
    found: list[Message] = []
    end = min(monotonic() + PATIENCE_SECONDS, deadline.get())
    while True:
        try:
            size = BATCH if limit is None else min(BATCH, limit - len(found))
            page, more = await _page(connection, stream, subject, after, size)
        except BrokerUnavailable as error:
            if monotonic() > end:
                raise BrokerUnavailable(await why_silent(connection, stream, str(error))) from error
            await asyncio.sleep(0.1)
            continue
        found += page
        if not page or len(found) == limit or not (more or len(page) >= size):
            return found
        after = page[-1].sequence


async def _page(connection: Connection, stream: str, subject: str, after: int, size: int) -> tuple[list[Message], bool]:
    """Up to a batch, and whether the server stopped before it (it does at 64 MiB)."""
    page: list[Message] = []
    done: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()

    def arrived(msg: Incoming) -> None:
        headers = msg.headers
        status = headers.get(STATUS)
        if status is None:
            page.append(message(msg))
        elif not done.done():
            done.set_result((status, int(headers.get("Nats-Num-Pending", "0"))))

    def refused(error: NoriaError) -> None:
        if not done.done():
            done.set_exception(error)

    wish: dict[str, Any] = {"seq": after + 1, "batch": size, "next_by_subj": subject}
    stop = connection.ask_many(f"{connection.js}.DIRECT.GET.{stream}", orjson.dumps(wish), arrived, refused)
    try:
        async with asyncio.timeout(ANSWER_SECONDS + 2):
            status, pending = await done
    except TimeoutError as error:
        raise BrokerUnavailable(f"{connection.no_answer} about {subject}") from error
    finally:
        stop()
    if status not in ("204", "404"):
        raise BrokerUnavailable(f"{stream} answered {status} about {subject}")
    return page, pending > 0


async def purge(connection: Connection, stream: str, subject: str) -> None:
    """Remove all messages of a subject. Raises NoriaError when the server refuses."""
    answer = await connection.api(f"STREAM.PURGE.{stream}", {"filter": subject})
    if "error" in answer:
        raise NoriaError(f"cannot purge {subject}: {answer['error'].get('description')}")

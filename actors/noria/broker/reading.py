"""Batched reads of a stream, for all ports that read."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from nats.aio.msg import Msg

from noria.broker.connection import Connection
from noria.clock import monotonic
from noria.errors import BrokerUnavailable
from noria.limits import ANSWER_SECONDS, PATIENCE_SECONDS

BATCH = 1000


class Message(NamedTuple):
    """A stored message."""

    sequence: int
    subject: str
    body: bytes
    time: float
    headers: dict[str, str]


def message(msg: Msg) -> Message:
    headers: dict[str, str] = msg.headers or {}
    stamp = headers.get("Nats-Time-Stamp", "")
    return Message(int(headers["Nats-Sequence"]), headers["Nats-Subject"], msg.data, _epoch(stamp), headers)


def _epoch(stamp: str) -> float:
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(whole + "+00:00").timestamp() + float(f"0.{fraction or 0}") if whole else 0.0


async def last(connection: Connection, stream: str, subject: str) -> Message | None:
    """The last message of an exact subject."""
    end = monotonic() + PATIENCE_SECONDS
    while True:
        try:
            msg = await connection.request(f"$JS.API.DIRECT.GET.{stream}.{subject}")
            status = (msg.headers or {}).get("Status")
            if status is None:
                return message(msg)
            if status == "404":
                return None
        except BrokerUnavailable:
            pass
        if monotonic() > end:
            raise BrokerUnavailable(f"no answer about {subject}")
        await asyncio.sleep(0.1)


async def read(connection: Connection, stream: str, subject: str, after: int = 0) -> list[Message]:
    """All messages of a subject (wildcards allowed) with a sequence above `after`, in order."""
    found: list[Message] = []
    end = monotonic() + PATIENCE_SECONDS
    while True:
        try:
            page = await _page(connection, stream, subject, after)
        except BrokerUnavailable:
            if monotonic() > end:
                raise
            await asyncio.sleep(0.1)
            continue
        found += page
        if len(page) < BATCH:
            return found
        after = page[-1].sequence


async def _page(connection: Connection, stream: str, subject: str, after: int) -> list[Message]:
    box = connection.client.new_inbox()
    page: list[Message] = []
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def arrived(msg: Msg) -> None:
        status = (msg.headers or {}).get("Status")
        if status is None:
            page.append(message(msg))
        elif not done.done():
            done.set_result(status)

    stop = await connection.subscribe(box, arrived)
    try:
        wish: dict[str, Any] = {"seq": after + 1, "batch": BATCH, "next_by_subj": subject}
        connection.publish(f"$JS.API.DIRECT.GET.{stream}", orjson.dumps(wish), reply=box)
        status = await asyncio.wait_for(done, ANSWER_SECONDS + 2)
    except TimeoutError as error:
        raise BrokerUnavailable(f"no answer about {subject}") from error
    finally:
        await stop()
    if status not in ("204", "404"):
        raise BrokerUnavailable(f"{stream} answered {status} about {subject}")
    return page

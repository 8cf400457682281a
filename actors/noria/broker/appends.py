"""Storing one message for good: the answer, and what to do when there is none, no leader, or a refusal.

An append is its own answer's receiver: between the server's word and the caller's future there is no task and no
second future, since the hot path waits for exactly this.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import orjson

from noria.broker.reasons import FULL, why_full, why_silent
from noria.broker.wire import Incoming
from noria.chance import fraction
from noria.clock import monotonic
from noria.errors import BrokerUnavailable, NoriaError
from noria.limits import PATIENCE_SECONDS
from noria.ports import Closed, Late, Refused, deadline

if TYPE_CHECKING:
    from noria.broker.connection import Connection

LOST_RACE, IN_FLIGHT = (10071, 10164), 10164
TRY_LATER = (503, 429)


class Append:
    """One message on its way into a stream, over all its tries. `result` is its sequence; see ports.Log for `late`."""

    __slots__ = ("_again", "_body", "_connection", "_end", "_late", "_lines", "deadline", "result", "subject")

    def __init__(self, connection: Connection, subject: str, body: bytes, lines: bytes, late: Late | None) -> None:
        self._connection, self.subject, self._body, self._lines, self._late = connection, subject, body, lines, late
        self._again = False  # a try before this one may be stored though nobody said so
        self._end, self.deadline = deadline.get(), 0.0
        self.result: asyncio.Future[int] = connection.loop.create_future()

    def begin(self) -> None:
        """The first try; patience counts from here."""
        self._end = min(self._end, monotonic() + PATIENCE_SECONDS)
        self.send()

    def send(self) -> None:
        self._connection.ask(self._body, self._lines or None, self)

    def answered(self, msg: Incoming) -> None:
        data = msg.data
        at = data.find(b'"seq":')
        if at > 0 and b'"error"' not in data:
            self._land(int(data[at + 6 :].split(b",", 1)[0].rstrip(b"} ")))
        elif self._wanted():
            self._connection.spawn(self._settle(data))

    def failed(self, error: NoriaError) -> None:
        if self._connection.client.is_closed or not isinstance(error, BrokerUnavailable):
            self.fail(error)
        elif self._wanted():
            self._connection.spawn(self._settle(b""))

    def fail(self, error: Exception) -> None:
        if not self.result.done():
            self.result.set_exception(error)
            self.result.exception()  # retrieved: nobody may be waiting any more
        else:
            self._tell_late(None)

    def _land(self, sequence: int) -> None:
        if not self.result.done():
            self.result.set_result(sequence)
        else:
            self._tell_late(sequence)

    def _wanted(self) -> bool:
        return not self.result.done() or (self.result.cancelled() and self._late is not None)

    def _tell_late(self, sequence: int | None) -> None:
        late, self._late = self._late, None
        if late is not None and self.result.cancelled():
            late(sequence)

    async def _settle(self, data: bytes) -> None:
        """The uncommon ways. The result is settled whatever happens here."""
        try:
            await self._judge(orjson.loads(data).get("error") if data else None)
        except asyncio.CancelledError:
            self.fail(Closed(f"the connection to {self._connection.shown} was closed"))
            raise
        except Exception as trouble:  # else nobody would ever complete the result
            words = f"unreadable answer about {self.subject}: {trouble!r}"
            self.fail(trouble if isinstance(trouble, NoriaError) else NoriaError(words))

    async def _judge(self, error: dict[str, Any] | None) -> None:
        code = error.get("err_code") if error is not None else None
        is_late = monotonic() > self._end or self._connection.client.is_closed
        if code in LOST_RACE:
            own = await self._stored() if self._again or code == IN_FLIGHT else None
            if own is not None:
                self._land(own)
            elif code == IN_FLIGHT and not is_late:  # a check on this subject is in flight: not decided yet
                await asyncio.sleep(0.05)
                self.send()
            else:
                self.fail(Refused(self.subject))
        elif error is not None and error.get("code") not in TRY_LATER and code not in FULL:
            self.fail(NoriaError(f"NATS refused a message on {self.subject}: {error.get('description')} ({code})"))
        elif is_late:
            stream = self._connection.stream_of(self.subject)
            said = self._connection.no_answer if error is None else f"{error.get('description')} ({code})"
            words = f"a message on {self.subject} was not stored in time: {said}"
            if code in FULL:
                self.fail(BrokerUnavailable(f"{words}: {await why_full(self._connection, stream, code)}"))
            else:
                self.fail(BrokerUnavailable(await why_silent(self._connection, stream, words)))
        else:
            await asyncio.sleep((0.5 if code in FULL else 0.1) * (1 + fraction()))
            self._again = True
            self.send()

    async def _stored(self) -> int | None:
        """The sequence of the subject's last message if it is this very one: a try whose answer was lost."""
        connection = self._connection
        # through the leader: a direct get of a replica may be stale
        answer = await connection.api(f"STREAM.MSG.GET.{connection.stream_of(self.subject)}", {"last_by_subj": self.subject})
        found = answer.get("message")
        return int(found["seq"]) if found is not None and self._body and base64.b64decode(found.get("data", "")) == self._body else None

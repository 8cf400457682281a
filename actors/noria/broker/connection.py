"""One connection to NATS: plain publishes with an acknowledgement inbox of our own, requests, reconnects.

nats-py's `js.publish` costs three times as much client CPU and its `publish_async` never completes when the server
refuses (nats-facts.md, 12). So acknowledgements come to one wildcard inbox and find their future by an integer.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import orjson
from nats.aio.msg import Msg

from noria.broker.wire import Incoming, WireClient
from noria.chance import fraction
from noria.clock import monotonic
from noria.errors import BrokerUnavailable, NoriaError, NotPermitted
from noria.limits import ANSWER_SECONDS, PATIENCE_SECONDS
from noria.ports import Refused

log = logging.getLogger("noria.broker")
LOST_RACE = (10071, 10164)
NO_LEADER = 10008
REFUSAL = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)
EXPECT = b"Nats-Expected-Last-Subject-Sequence: %d\r\n"
Headers = bytes  # prebuilt header lines, each with its line end


class Answer(asyncio.Future[Incoming]):
    """A request under way; `deadline` on the monotonic clock."""

    deadline = 0.0
    subject = ""


class Reader(NamedTuple):
    """Who gets the many answers to one request, or the refusal."""

    subject: str
    on_message: Callable[[Incoming], None]
    on_refusal: Callable[[NotPermitted], None]


class Connection:
    """Made by `opening.open_connection`."""

    def __init__(self, client: WireClient, url: str, js: str = "$JS.API") -> None:
        self.client, self.url, self.js = client, url, js
        self.stream_of: Callable[[str], str] = _unknown  # set by the broker
        self.loop = asyncio.get_running_loop()
        self.on_reconnect: list[Callable[[], None]] = []
        self._denied: dict[str, NotPermitted] = {}  # by subject, in lower case as nats-py gives it
        self._box = client.new_inbox()
        self._pages = client.new_inbox()
        self._readers: dict[str, Reader] = {}
        self._tokens = itertools.count(1)
        self._answers: dict[str, Answer] = {}
        self._out: list[bytes] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._retries: set[asyncio.Task[None]] = set()
        self._appends: set[asyncio.Future[int]] = set()
        self.shown = shown(url)

    async def start(self) -> None:
        prefix = len(self._box) + 1

        def answered(msg: Incoming) -> None:
            answer = self._answers.pop(msg.subject[prefix:], None)
            if answer is not None and not answer.done():
                answer.set_result(msg)

        def page(msg: Incoming) -> None:
            reader = self._readers.get(msg.subject.rpartition(".")[2])
            if reader is not None:
                reader.on_message(msg)

        await self.subscribe(f"{self._box}.*", answered)
        await self.subscribe(f"{self._pages}.*", page)
        await self.client.flush()
        self._sweeper = asyncio.create_task(self._sweep())

    @property
    def _guarded(self) -> bool:
        return bool(self.client._server_info.get("auth_required"))  # pyright: ignore[reportPrivateUsage]

    def deny(self, words: str) -> None:
        """The server refused something; it only says so on the side. Whoever waits for it is told."""
        found = REFUSAL.search(words)
        if found is None:
            return
        verb, subject = found.groups()
        error = NotPermitted(f"this NATS user may not {'subscribe' if verb == 'subscription' else 'publish'} to {subject}: connect as another role")
        waiting = [t for t, a in self._answers.items() if a.subject.lower() == subject]
        reading = [r for r in self._readers.values() if r.subject.lower() == subject]
        if self._denied.setdefault(subject, error) is error and not waiting and not reading:
            log.warning("%s", error)
        for token in waiting:
            _refuse(self._answers.pop(token), error)
        for reader in reading:
            reader.on_refusal(error)

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._flush()
        if not self.client.is_closed:
            try:
                await asyncio.wait_for(self.client.flush(), 1)
            except Exception:  # closing all the same
                log.debug("no answer to the last flush")
            await self.client.close()
        closed = BrokerUnavailable(f"the connection to {self.shown} was closed")
        for result in list(self._appends):
            _fail(result, closed)
        for retry in list(self._retries):
            retry.cancel()
        for answer in list(self._answers.values()):
            if not answer.done():
                answer.set_exception(closed)
                answer.exception()
        self._answers.clear()

    async def _sweep(self) -> None:
        """One timer for all requests in flight."""
        while True:
            await asyncio.sleep(0.5)
            now = monotonic()
            for token in [t for t, a in self._answers.items() if a.deadline < now]:
                answer = self._answers.pop(token)
                if not answer.done():
                    answer.set_exception(BrokerUnavailable(f"no answer from {self.shown}"))
                    answer.exception()  # retrieved: nobody may be waiting any more

    # Sending ----------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Queue protocol bytes; one write per loop tick."""
        if not self._out:
            self.loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if not self._out or self.client.is_closed:
            self._out.clear()
            return
        data = b"".join(self._out)
        self._out.clear()
        client: Any = self.client
        client._pending.append(data)
        client._pending_data_size += len(data)
        if client.is_connected and client._flush_queue is not None and client._flush_queue.empty():
            client._flush_queue.put_nowait(self.loop.create_future())

    def publish(self, subject: str, body: bytes = b"", headers: Headers | None = None, reply: str = "") -> None:
        """Fire and forget. What exceeds max_payload is dropped with a warning: the server would cut the connection."""
        if not self._fits(body, headers):
            log.warning("%d bytes on %s exceed the server's max_payload of %d bytes: not sent", len(body), subject, self.client.max_payload)
            return
        self._put(subject, body, headers, reply)

    def _fits(self, body: bytes, headers: Headers | None) -> bool:
        return len(body) + (len(headers) + 12 if headers is not None else 0) <= self.client.max_payload  # 12: NATS/1.0 and line ends

    def _put(self, subject: str, body: bytes, headers: Headers | None, reply: str) -> None:
        to = f"{subject} {reply}" if reply else subject
        if headers is None:
            self.write(b"PUB %b %d\r\n%b\r\n" % (to.encode(), len(body), body))
        else:
            head = b"NATS/1.0\r\n%b\r\n" % headers
            self.write(b"HPUB %b %d %d\r\n%b%b\r\n" % (to.encode(), len(head), len(head) + len(body), head, body))

    def request(self, subject: str, body: bytes = b"", headers: Headers | None = None, timeout: float = ANSWER_SECONDS) -> Answer:
        """Publish and get the answer's future; BrokerUnavailable when none comes in time."""
        token = str(next(self._tokens))
        answer = self._answers[token] = Answer(loop=self.loop)
        answer.deadline, answer.subject = monotonic() + timeout, subject
        if self.client.is_closed or not self._fits(body, headers):
            del self._answers[token]
            closed = BrokerUnavailable(f"the connection to {self.shown} is closed")
            answer.set_exception(closed if self.client.is_closed else self._too_large(subject, body))
            answer.exception()
            return answer
        self._put(subject, body, headers, f"{self._box}.{token}")
        return answer

    def _too_large(self, subject: str, body: bytes) -> NoriaError:
        return NoriaError(f"{len(body)} bytes on {subject} exceed the server's max_payload of {self.client.max_payload} bytes")

    def open_inbox(
        self, subject: str, reader: Callable[[Incoming], None], refused: Callable[[NotPermitted], None]
    ) -> tuple[str, Callable[[], None]]:
        """An address for the answers from `subject`, each handed to `reader`, and how to stop listening."""
        token = str(next(self._tokens))
        self._readers[token] = Reader(subject, reader, refused)
        return f"{self._pages}.{token}", lambda: self._readers.pop(token, None) and None

    def ask_many(
        self, subject: str, body: bytes, reader: Callable[[Incoming], None], refused: Callable[[NotPermitted], None]
    ) -> Callable[[], None]:
        """A request that is answered by many messages, each handed to `reader`. Returns how to stop listening."""
        address, stop = self.open_inbox(subject, reader, refused)
        self.publish(subject, body, reply=address)
        return stop

    async def api(self, subject: str, body: Any = None) -> dict[str, Any]:
        """A JetStream API request, tried again while nobody answers. Errors come back under "error"."""
        data = b"" if body is None else orjson.dumps(body)
        end = monotonic() + PATIENCE_SECONDS
        while True:
            try:
                msg = await self.request(f"{self.js}.{subject}", data)
                answer: dict[str, Any] = orjson.loads(msg.data) if msg.data else {"error": {"err_code": NO_LEADER}}
                if answer.get("error", {}).get("err_code") != NO_LEADER:
                    return answer
            except BrokerUnavailable:
                if monotonic() > end or self.client.is_closed:
                    raise
            if monotonic() > end:
                raise BrokerUnavailable(f"JetStream does not answer at {self.shown}: is it enabled?")
            await asyncio.sleep(0.1)

    # Appending --------------------------------------------------------------------------------------------------

    def append(self, subject: str, body: bytes, expected: int | None = None, headers: Headers = b"") -> asyncio.Future[int]:
        """Store a message; its sequence. Under way at once, and completes though nobody awaits it. Refused when the
        expectation does not hold; BrokerUnavailable when nobody answered for long: it may be stored all the same."""
        result: asyncio.Future[int] = self.loop.create_future()
        result.add_done_callback(_retrieved)
        lines = headers if expected is None else EXPECT % expected + headers
        if not self._fits(body, lines):
            result.set_exception(self._too_large(subject, body))
            return result
        self._appends.add(result)
        result.add_done_callback(self._appends.discard)
        end = monotonic() + PATIENCE_SECONDS
        answer = self.request(subject, body, lines or None)
        answer.add_done_callback(lambda a: self._appended(a, result, subject, body, lines, end, False))
        return result

    def _appended(
        self, answer: asyncio.Future[Incoming], result: asyncio.Future[int], subject: str, body: bytes, lines: Headers, end: float, again: bool
    ) -> None:
        if result.done():
            return
        if answer.cancelled():
            result.set_exception(BrokerUnavailable(f"the connection to {self.shown} was closed"))
            return
        trouble = answer.exception()
        if isinstance(trouble, NotPermitted):
            _fail(result, trouble)
            return
        data = answer.result().data if trouble is None else b""
        at = data.find(b'"seq":')
        if at > 0 and b'"error"' not in data:
            result.set_result(int(data[at + 6 :].split(b",", 1)[0].rstrip(b"} ")))
            return
        task = self.loop.create_task(self._settle(data, result, subject, body, lines, end, again))
        self._retries.add(task)
        task.add_done_callback(self._retries.discard)

    async def _settle(
        self, data: bytes, result: asyncio.Future[int], subject: str, body: bytes, lines: Headers, end: float, again: bool
    ) -> None:
        """The uncommon ways: no answer, no leader, a refusal, an error. The result is settled whatever happens here."""
        try:
            await self._judge(data, result, subject, body, lines, end, again)
        except asyncio.CancelledError:
            _fail(result, BrokerUnavailable(f"the connection to {self.shown} was closed"))
            raise
        except Exception as trouble:  # else nobody would ever complete the result
            _fail(result, trouble if isinstance(trouble, NoriaError) else NoriaError(f"unreadable answer about {subject}: {trouble!r}"))

    async def _judge(
        self, data: bytes, result: asyncio.Future[int], subject: str, body: bytes, lines: Headers, end: float, again: bool
    ) -> None:
        error = orjson.loads(data).get("error") if data else None
        if error is not None and error.get("err_code") in LOST_RACE:
            own = await self._stored(subject, body) if again or error["err_code"] == 10164 else None
            if own is not None:
                _set(result, own)
            elif error["err_code"] == 10164 and monotonic() < end:  # a check on this subject is in flight: not decided yet
                await asyncio.sleep(0.05)
                self._again(result, subject, body, lines, end, again)
            else:
                _fail(result, Refused(subject))
        elif error is not None and error.get("code") not in (503, 429):
            _fail(result, NoriaError(f"NATS refused a message on {subject}: {error.get('description')} ({error.get('err_code')})"))
        elif monotonic() > end or self.client.is_closed:
            _fail(result, BrokerUnavailable(f"{self.shown} did not acknowledge a message on {subject} in time: {error or 'no answer'}"))
        else:
            await asyncio.sleep(0.1 + fraction() * 0.1)
            self._again(result, subject, body, lines, end, True)

    def _again(self, result: asyncio.Future[int], subject: str, body: bytes, lines: Headers, end: float, again: bool) -> None:
        answer = self.request(subject, body, lines or None)
        answer.add_done_callback(lambda a: self._appended(a, result, subject, body, lines, end, again))

    async def _stored(self, subject: str, body: bytes) -> int | None:
        """The sequence of the subject's last message if it is this very one: a try whose answer was lost."""
        # through the leader: a direct get of a replica may be stale
        found = (await self.api(f"STREAM.MSG.GET.{self.stream_of(subject)}", {"last_by_subj": subject})).get("message")
        return int(found["seq"]) if found is not None and body and base64.b64decode(found.get("data", "")) == body else None


    # Receiving --------------------------------------------------------------------------------------------------

    async def subscribe(self, subject: str, callback: Callable[[Incoming], None], queue: str = "") -> Callable[[], Awaitable[None]]:
        """Call back for each message, in the reading loop. Returns how to stop."""

        async def early(msg: Msg) -> None:  # what comes before the reader is in its place
            callback(Incoming(msg.subject, msg.reply, msg.data, headers=msg.headers or {}))

        client: Any = self.client
        subscription: Any = await client.subscribe(subject, queue=queue, cb=early, pending_msgs_limit=-1, pending_bytes_limit=-1)
        client.readers[subscription._id] = callback
        await asyncio.sleep(0)
        if self._guarded:
            await self.client.flush()
            if (refusal := self._denied.get(subject.lower())) is not None:
                raise refusal

        async def stop() -> None:
            client.readers.pop(subscription._id, None)
            if not client.is_closed:
                try:
                    await subscription.unsubscribe()
                except Exception as error:
                    log.debug("unsubscribe: %s", error)

        return stop


def shown(url: str) -> str:
    """The address without its password, for messages."""
    return re.sub(r"//[^/@]*@", "//***@", url)


def _unknown(subject: str) -> str:
    return ""


def _retrieved(future: asyncio.Future[int]) -> None:
    if not future.cancelled():
        future.exception()


def _refuse(answer: Answer, error: NotPermitted) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # retrieved: nobody may be waiting any more


def _set(future: asyncio.Future[int], value: int) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[int], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)

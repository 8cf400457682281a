"""One connection to NATS: plain publishes with an acknowledgement inbox of our own, requests, reconnects.

nats-py's `js.publish` costs three times as much client CPU and its `publish_async` never completes when the server
refuses (nats-facts.md, 12). So acknowledgements come to one wildcard inbox and find their future by an integer.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, Protocol

import orjson
from nats.aio.msg import Msg

from noria import chance
from noria.broker.appends import Append
from noria.broker.wire import DESCRIPTION, STATUS, Incoming, WireClient
from noria.clock import monotonic, now
from noria.errors import BrokerUnavailable, LimitExceeded, NoriaError, NotPermitted
from noria.limits import ANSWER_SECONDS, CLOCK_SECONDS, MAX_IN_FLIGHT, MAX_SUBJECT, MAX_UNSENT_BYTES, PATIENCE_SECONDS
from noria.ports import Closed, Late, deadline

log = logging.getLogger("noria.broker")
NO_LEADER = 10008
REFUSAL = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)
EXPECT = b"Nats-Expected-Last-Subject-Sequence: %d\r\n"
INLINE = {"Status": STATUS, "Description": DESCRIPTION}  # as nats-py names them
Headers = bytes  # prebuilt header lines, each with its line end


class Asker(Protocol):
    """Asked on `subject` and waits for one answer until `deadline` on the monotonic clock."""

    subject: str
    deadline: float

    def answered(self, msg: Incoming) -> None: ...
    def failed(self, error: NoriaError) -> None: ...


class Answer(asyncio.Future[Incoming]):
    """A request under way."""

    def __init__(self, subject: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.subject, self.deadline = subject, 0.0

    def answered(self, msg: Incoming) -> None:
        if not self.done():
            self.set_result(msg)

    def failed(self, error: NoriaError) -> None:
        if not self.done():
            self.set_exception(error)
            self.exception()  # retrieved: nobody may be waiting any more


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
        self.trouble = ""  # what the server, or the network, said last before it was not reached any more
        self.server_time: float | None = None  # epoch seconds of the server where the steady clock is 0; None: not known
        self.replicated = False  # whether reads may be stale; known once the topology was looked at
        self.on_reconnect: list[Callable[[], None]] = []
        self._denied: dict[str, NotPermitted] = {}  # by subject, in lower case as nats-py gives it
        self._box = client.new_inbox()
        self._pages = client.new_inbox()
        self._readers: dict[str, Reader] = {}
        self._tokens = itertools.count(1)
        self._askers: dict[str, Asker] = {}
        self._waiting: deque[Append] = deque()  # beyond MAX_IN_FLIGHT
        self._out: list[bytes] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.shown = shown(url)

    async def start(self) -> None:
        prefix = len(self._box) + 1

        def answered(msg: Incoming) -> None:
            asker = self._askers.pop(msg.subject[prefix:], None)
            if asker is not None:
                asker.answered(msg)
            if self._waiting:
                self._admit()

        def page(msg: Incoming) -> None:
            reader = self._readers.get(msg.subject.rpartition(".")[2])
            if reader is not None:
                reader.on_message(msg)

        await self.subscribe(f"{self._box}.*", answered)
        await self.subscribe(f"{self._pages}.*", page)
        await self.client.flush()
        self._sweeper = asyncio.create_task(self._sweep())

    @property
    def ahead(self) -> float:
        """By how many seconds this host's wall clock is before the server's; 0 where it is as good as right."""
        difference = 0.0 if self.server_time is None else now() - monotonic() - self.server_time
        return difference if abs(difference) > CLOCK_SECONDS else 0.0

    @property
    def no_answer(self) -> str:
        """That there is none, in words, and why."""
        cause = "" if self.client.is_connected else f": {self.trouble or 'not connected'}"
        return f"no answer from {self.shown}{cause}"

    @property
    def _guarded(self) -> bool:
        return bool(self.client._server_info.get("auth_required"))  # pyright: ignore[reportPrivateUsage]

    @property
    def server(self) -> str:
        """The server and where it is, for people."""
        version = self.client.connected_server_version
        return f"nats-server {version.major}.{version.minor}.{version.patch} at {self.shown}"

    def deny(self, words: str) -> bool:
        """Whether the server refused something; it only says so on the side. Whoever waits for it is told."""
        found = REFUSAL.search(words)
        if found is None:
            return False
        verb, subject = found.groups()
        error = NotPermitted(f"this NATS user may not {'subscribe' if verb == 'subscription' else 'publish'} to {subject}: connect as another role")
        waiting = [t for t, a in self._askers.items() if a.subject.lower() == subject]
        reading = [r for r in self._readers.values() if r.subject.lower() == subject]
        if self._denied.setdefault(subject, error) is error and not waiting and not reading:
            log.warning("%s", error)
        for token in waiting:
            self._askers.pop(token).failed(error)
        for reader in reading:
            reader.on_refusal(error)
        return True

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._flush()
        if not self.client.is_closed:
            try:
                async with asyncio.timeout(1):
                    await self.client.flush()
            except Exception:  # closing all the same
                log.debug("no answer to the last flush")
            await self.client.close()
        for task in list(self._tasks):
            task.cancel()
        for asker in list(self._askers.values()):
            asker.failed(Closed(f"the connection to {self.shown} was closed"))
        for append in self._waiting:
            append.fail(Closed(f"the connection to {self.shown} was closed"))
        self._askers.clear()
        self._waiting.clear()

    async def _sweep(self) -> None:
        """One timer for all requests in flight."""
        while True:
            await asyncio.sleep(0.5)
            time = monotonic()
            for token in [t for t, a in self._askers.items() if a.deadline < time]:
                self._askers.pop(token).failed(BrokerUnavailable(self.no_answer))
            self._admit()

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
        if not client.is_connected and client._pending_data_size > MAX_UNSENT_BYTES:
            return  # what is asked again meanwhile, and never answered, would pile up
        client._pending.append(data)
        client._pending_data_size += len(data)
        if client.is_connected and client._flush_queue is not None and client._flush_queue.empty():
            client._flush_queue.put_nowait(self.loop.create_future())

    def publish(self, subject: str, body: bytes = b"", headers: Headers | None = None, reply: str = "") -> None:
        """Fire and forget. What exceeds max_payload is dropped with a warning: the server would cut the connection."""
        if not self._put(subject, body, headers, reply):
            log.warning("%d bytes on %s exceed the server's max_payload of %d bytes: not sent", len(body), subject, self.client.max_payload)

    def _put(self, subject: str, body: bytes, headers: Headers | None, reply: str) -> bool:
        """False: not sent, it is too large."""
        head = b"" if headers is None else b"NATS/1.0\r\n%b\r\n" % headers
        size, to = len(head) + len(body), f"{subject} {reply}" if reply else subject
        if size > self.client.max_payload:
            return False
        if head:
            self.write(b"HPUB %b %d %d\r\n%b%b\r\n" % (to.encode(), len(head), size, head, body))
        else:
            self.write(b"PUB %b %d\r\n%b\r\n" % (to.encode(), size, body))
        return True

    def request(self, subject: str, body: bytes = b"", headers: Headers | None = None, timeout: float = ANSWER_SECONDS) -> Answer:
        """Publish and get the answer's future; BrokerUnavailable when none comes in time, NoriaError for what is no subject."""
        answer = Answer(subject, self.loop)
        if is_subject(subject):
            self.ask(body, headers, answer, timeout)
        else:
            answer.failed(NoriaError(f"{subject[:200]!r} is no subject"))
        return answer

    def ask(self, body: bytes, headers: Headers | None, asker: Asker, timeout: float = ANSWER_SECONDS) -> None:
        """Publish; the asker gets the answer, or is told that there is none."""
        if self.client.is_closed:
            return asker.failed(Closed(f"the connection to {self.shown} is closed"))
        token = str(next(self._tokens))
        if not self._put(asker.subject, body, headers, f"{self._box}.{token}"):
            limit = self.client.max_payload
            return asker.failed(LimitExceeded(f"{len(body)} bytes on {asker.subject} exceed the server's max_payload of {limit} bytes"))
        self._askers[token], asker.deadline = asker, monotonic() + timeout
        return None

    def open_inbox(
        self, subject: str, reader: Callable[[Incoming], None], refused: Callable[[NotPermitted], None]
    ) -> tuple[str, Callable[[], None]]:
        """An address for the answers from `subject`, each handed to `reader`, and how to stop listening."""
        token = chance.token(8).hex()  # who is told the address must not guess others
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
        end = min(monotonic() + PATIENCE_SECONDS, deadline.get())
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

    def append(
        self, subject: str, body: bytes, expected: int | None = None, headers: Headers = b"", late: Late | None = None
    ) -> asyncio.Future[int]:
        """Store a message; its sequence. Under way at once, and completes though nobody awaits it. Refused when the
        expectation does not hold; BrokerUnavailable when nobody answered for long: it may be stored all the same."""
        append = Append(self, subject, body, headers if expected is None else EXPECT % expected + headers, late)
        if len(self._askers) < MAX_IN_FLIGHT:
            append.begin()
        else:
            self._waiting.append(append)
        return append.result

    def _admit(self) -> None:
        while self._waiting and len(self._askers) < MAX_IN_FLIGHT:
            self._waiting.popleft().begin()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """A task that ends with the connection."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Receiving --------------------------------------------------------------------------------------------------

    async def subscribe(self, subject: str, callback: Callable[[Incoming], None], queue: str = "") -> Callable[[], Awaitable[None]]:
        """Call back for each message, in the reading loop. Returns how to stop. Raises NoriaError for what is no subject."""
        if self.client.is_closed:
            raise Closed(f"the connection to {self.shown} is closed")
        if not is_subject(subject):
            raise NoriaError(f"{subject[:200]!r} is no subject")

        async def early(msg: Msg) -> None:  # what comes before the reader is in its place
            callback(Incoming(msg.subject, msg.reply, msg.data, headers={INLINE.get(k, k): v for k, v in (msg.headers or {}).items()}))

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


def is_subject(text: str) -> bool:
    """Whether it can be written into the protocol as one. What a caller names has to be asked, what is made of known ids has not."""
    return 0 < len(text) <= MAX_SUBJECT and " " not in text and text.isprintable()


def shown(url: str) -> str:
    """The address without its password, for messages."""
    return re.sub(r"//[^/@]*@", "//***@", url)


def _unknown(subject: str) -> str:
    return ""

"""Requests and replies between clients of the simulated server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from noria.errors import BrokerUnavailable, NoriaError
from noria.ports import Answer, Endpoint, Nobody, RunKey
from noria.testing.outside import fits
from noria.testing.server import MAX_PAYLOAD, Server
from noria.testing.wire import Wire

GOING = Answer(b"", "this worker stops: ask again", "503")


class MemoryCalls:
    """ports.Calls."""

    seals, max_bytes = False, MAX_PAYLOAD

    def __init__(self, server: Server, wire: Wire) -> None:
        self.server, self.wire = server, wire

    async def ask(self, subject: str, body: bytes, timeout: float) -> Answer:
        answered: asyncio.Future[Answer | None] = self.wire.loop.create_future()

        def settle(answer: Answer | None) -> None:
            self.wire.receive("answer", lambda: answered.done() or answered.set_result(answer))

        self.wire.send("call", lambda: self.server.call(subject, body, settle))
        try:
            async with asyncio.timeout(timeout):
                answer = await answered
        except TimeoutError as error:
            raise BrokerUnavailable(f"no answer about {subject}") from error
        if answer is None:
            raise Nobody(subject)
        return answer

    def open(self, on_message: Callable[[Answer | None], None]) -> MemoryTalk:
        return MemoryTalk(self.server, self.wire, on_message)

    def tell(self, subject: str, body: bytes) -> None:
        self.wire.send("tell", lambda: self.server.tell(subject, body))

    async def listen(self, subject: str, callback: Callable[[str, bytes], None]) -> Callable[[], Awaitable[None]]:
        return _subscribe(self.server, self.wire, subject, callback)

    def seal(self, context: RunKey, body: bytes, shown: tuple[str, ...]) -> bytes:
        return body

    def unseal(self, context: RunKey, body: bytes) -> bytes:
        return body


class MemoryTalk:
    """ports.Talk."""

    def __init__(self, server: Server, wire: Wire, on_message: Callable[[Answer | None], None]) -> None:
        server.inboxes += 1
        self.address, self._server, self._wire, self._on_message = f"_INBOX.{server.inboxes}", server, wire, on_message
        self._stop = _subscribe(server, wire, self.address, lambda _, body: on_message(Answer(body)))

    def send(self, subject: str, body: bytes) -> None:
        if len(body) > MAX_PAYLOAD:
            raise NoriaError(f"{len(body)} bytes on {subject} exceed the server's max_payload of {MAX_PAYLOAD} bytes")

        def answered(answer: Answer | None) -> None:
            self._wire.receive("answer", self._on_message, answer)

        self._wire.send("call", lambda: self._server.call(subject, body, answered))

    def close(self) -> None:
        self._server.listeners.pop(self.address, None)


class MemoryServices:
    """ports.Services."""

    def __init__(self, server: Server, wire: Wire) -> None:
        self.server, self.wire = server, wire

    async def serve(
        self, name: str, description: str, metadata: Mapping[str, str], endpoints: Sequence[Endpoint]
    ) -> Callable[[float], Awaitable[None]]:
        running: set[asyncio.Task[None]] = set()

        def handler(endpoint: Endpoint) -> Callable[[bytes, Callable[[Answer | None], None]], None]:
            async def handle(body: bytes, settle: Callable[[Answer | None], None]) -> None:
                try:
                    answer = await endpoint.handler(body)
                except asyncio.CancelledError:
                    answer = GOING
                self.wire.send("answer", lambda: settle(answer))

            def begin(body: bytes, settle: Callable[[Answer | None], None]) -> None:
                task = self.wire.loop.create_task(handle(body, settle))
                running.add(task)
                task.add_done_callback(running.discard)

            return lambda body, settle: self.wire.receive("call", begin, body, settle)

        places = [(self.server.served.setdefault(e.subject, []), handler(e)) for e in endpoints]
        for members, member in places:
            members.append(member)

        def leave() -> None:
            for members, member in places:
                if member in members:
                    members.remove(member)

        async def stop(grace: float) -> None:
            leave()
            if running and grace > 0:
                await asyncio.wait(set(running), timeout=grace)
            for task in list(running):
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

        self.wire.closed.append(leave)
        return stop


def _subscribe(server: Server, wire: Wire, subject: str, callback: Callable[[str, bytes], None]) -> Callable[[], Awaitable[None]]:
    def hear(to: str, body: bytes) -> None:
        if fits(subject, to):
            wire.receive("message", callback, to, body)

    server.listeners.setdefault(subject, []).append(hear)

    async def stop() -> None:
        if hear in server.listeners.get(subject, ()):
            server.listeners[subject].remove(hear)

    return stop

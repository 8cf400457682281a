"""Requests and replies by core NATS: calling, and serving as NATS micro services."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nats.aio.msg import Msg
from nats.micro.request import ERROR_CODE_HEADER, ERROR_HEADER, Request
from nats.micro.service import Service, ServiceConfig

from noria.broker.connection import Connection, is_subject
from noria.broker.wire import STATUS, Incoming
from noria.errors import NoriaError
from noria.ports import Answer, Endpoint, Nobody, RunKey

log = logging.getLogger("noria.broker")
GOING = Answer(b"", "this worker stops: ask again", "503")


class NatsCalls:
    """ports.Calls."""

    seals = False

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @property
    def max_bytes(self) -> int:
        return self.connection.client.max_payload

    async def ask(self, subject: str, body: bytes, timeout: float) -> Answer:
        msg = await self.connection.request(subject, body, timeout=timeout)
        if msg.headers.get(STATUS) == "503":
            raise Nobody(subject)
        return _answer(msg)

    def open(self, on_message: Callable[[Answer | None], None]) -> NatsTalk:
        return NatsTalk(self.connection, on_message)

    def tell(self, subject: str, body: bytes) -> None:
        if is_subject(subject):
            self.connection.publish(subject, body)

    async def listen(self, subject: str, callback: Callable[[str, bytes], None]) -> Callable[[], Awaitable[None]]:
        return await self.connection.subscribe(subject, lambda msg: callback(msg.subject, msg.data))

    def seal(self, context: RunKey, body: bytes, shown: tuple[str, ...]) -> bytes:
        return body

    def unseal(self, context: RunKey, body: bytes) -> bytes:
        return body


def _answer(msg: Incoming) -> Answer:
    return Answer(msg.data, msg.headers.get(ERROR_HEADER), msg.headers.get(ERROR_CODE_HEADER))


class NatsTalk:
    """ports.Talk in the connection's inbox."""

    def __init__(self, connection: Connection, on_message: Callable[[Answer | None], None]) -> None:
        def arrived(msg: Incoming) -> None:
            on_message(None if msg.headers.get(STATUS) == "503" else _answer(msg))

        self._connection = connection
        self.address, self.close = connection.open_inbox("", arrived, lambda _: on_message(None))

    def send(self, subject: str, body: bytes) -> None:
        if not is_subject(subject):
            raise NoriaError(f"{subject[:200]!r} is no subject")
        limit = self._connection.client.max_payload
        if len(body) > limit:
            raise NoriaError(f"{len(body)} bytes on {subject} exceed the server's max_payload of {limit} bytes")
        self._connection.publish(subject, body, reply=self.address)


class NatsServices:
    """ports.Services by nats-py's micro framework."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def serve(
        self, name: str, description: str, metadata: Mapping[str, str], endpoints: Sequence[Endpoint]
    ) -> Callable[[float], Awaitable[None]]:
        tasks = _Tasks(self.connection.client)
        service = Service(tasks, ServiceConfig(name, _version(), description, dict(metadata)))  # pyright: ignore[reportArgumentType]
        await service.start()
        for endpoint in endpoints:
            counts: list[Any] = []
            await service.add_endpoint(
                name=endpoint.name, subject=endpoint.subject, handler=self._handler(endpoint, counts), metadata=dict(endpoint.metadata)
            )
            counts.append(vars(service)["_endpoints"][-1])

        async def stop(grace: float) -> None:
            if not self.connection.client.is_closed:
                await service.stop()
            await tasks.finish(grace)

        return stop

    def _handler(self, endpoint: Endpoint, counts: list[Any]) -> Callable[[Request], Awaitable[None]]:
        async def handle(request: Request) -> None:
            try:
                answer = await endpoint.handler(request.data)
            except asyncio.CancelledError:
                answer = GOING
            limit = self.connection.client.max_payload
            if len(answer.body) > limit:
                answer = Answer(b"", f"the answer of {len(answer.body)} bytes exceeds the server's max_payload of {limit} bytes", "413")
            if answer.error is None:
                return await request.respond(answer.body)
            for counted in counts:  # nats-py counts only what is raised, and that has no body
                counted._num_errors, counted._last_error = counted._num_errors + 1, answer.error
            return await request.respond_error(answer.code or "500", " ".join(answer.error.split()), answer.body)

        return handle


class _Tasks:
    """A client whose subscriptions hand each message to a task of its own: a long wait does not block an endpoint."""

    def __init__(self, client: Any) -> None:
        self._client, self._running = client, set[asyncio.Task[None]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def subscribe(self, subject: str, queue: str = "", cb: Callable[[Msg], Awaitable[None]] | None = None) -> Any:
        async def safely(msg: Msg) -> None:
            try:
                assert cb is not None
                await cb(msg)
            except Exception as error:  # without a reply subject, or the connection is gone
                log.warning("a request on %s could not be answered: %s", msg.subject, error)

        async def spawn(msg: Msg) -> None:
            task = asyncio.create_task(safely(msg))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

        return await self._client.subscribe(subject, queue=queue, cb=spawn)

    async def finish(self, grace: float) -> None:
        """What still runs gets `grace` seconds, then is cancelled; its callers are told to ask again."""
        if self._running and grace > 0:
            await asyncio.wait(set(self._running), timeout=grace)
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


def _version() -> str:
    try:
        return version("noria")
    except PackageNotFoundError:
        return "0.0.0"

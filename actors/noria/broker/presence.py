"""Presence by core request and reply: the server itself says at once when nobody listens under a name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from noria.broker.connection import Connection
from noria.broker.wire import STATUS, Incoming
from noria.clock import monotonic
from noria.contract.subjects import Subjects
from noria.errors import BrokerUnavailable, NotPermitted
from noria.ports import EVERYBODY

ASK_SECONDS = 1.0
DOUBT_SECONDS = 2.0  # after a reconnect the others may not be back yet: their absence says nothing
NOBODY = "503"


class NatsPresence:
    """ports.Presence."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self.connection, self.subjects = connection, subjects
        self._reconnected = -DOUBT_SECONDS
        connection.on_reconnect.append(self._back)

    def _back(self) -> None:
        self._reconnected = monotonic()

    async def answer(self, host: str, on_question: Callable[[bytes], bytes]) -> Callable[[], Awaitable[None]]:
        def asked(msg: Incoming) -> None:
            answer = on_question(msg.data)
            if msg.reply:
                self.connection.publish(msg.reply, answer)

        stops = [await self.connection.subscribe(self.subjects.host(name), asked) for name in (host, EVERYBODY)]

        async def stop() -> None:
            for each in stops:
                await each()

        return stop

    async def ask(self, host: str) -> bytes | None:
        answer = await self.connection.request(self.subjects.host(host), timeout=ASK_SECONDS)
        if answer.headers.get(STATUS) != NOBODY:
            return answer.data
        if monotonic() - self._reconnected < DOUBT_SECONDS:
            raise BrokerUnavailable(f"host {host} may not be back yet")
        return None

    async def gather(self, body: bytes, seconds: float, enough: int) -> list[bytes]:
        answers: list[bytes] = []
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def answered(msg: Incoming) -> None:
            nobody = msg.headers.get(STATUS) == NOBODY
            if not nobody:
                answers.append(msg.data)
            if (nobody or len(answers) >= enough) and not done.done():
                done.set_result(None)

        def refused(error: NotPermitted) -> None:
            if not done.done():
                done.set_exception(error)

        stop = self.connection.ask_many(self.subjects.host(EVERYBODY), body, answered, refused)
        try:
            async with asyncio.timeout(seconds):
                await done
        except TimeoutError:
            pass
        finally:
            stop()
        return answers

    def tell(self, body: bytes) -> None:
        self.connection.publish(self.subjects.host(EVERYBODY), body)

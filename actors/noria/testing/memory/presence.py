"""Who is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from noria.errors import BrokerUnavailable
from noria.ports import EVERYBODY
from noria.testing.memory.port import Port
from noria.testing.wire import ask

ASK_SECONDS = 1.0


class MemoryPresence(Port):
    """ports.Presence."""

    async def answer(self, host: str, on_question: Callable[[bytes], bytes]) -> Callable[[], Awaitable[None]]:
        def hear(question: bytes, reply: Callable[[bytes], None]) -> None:
            self.wire.receive("question", come, question, reply)

        def come(question: bytes, reply: Callable[[bytes], None]) -> None:
            answer = on_question(question)
            self.wire.send("word", lambda: reply(answer))

        listeners = [self.server.hosts.setdefault(name, []) for name in (host, EVERYBODY)]

        def leave() -> None:
            for each in listeners:
                if hear in each:
                    each.remove(hear)

        def enter() -> None:
            for each in listeners:
                each.append(hear)

        async def stop() -> None:
            leave()

        await ask(self.wire, "presence", enter)
        self.wire.closed.append(leave)
        return stop

    async def ask(self, host: str) -> bytes | None:
        answers: asyncio.Queue[bytes] = asyncio.Queue()
        if not await ask(self.wire, "ask host", lambda: self._question(host, b"", answers)):
            return None
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await answers.get()
        except TimeoutError:
            raise BrokerUnavailable(f"host {host} is silent") from None

    async def gather(self, body: bytes, seconds: float, enough: int) -> list[bytes]:
        answers: asyncio.Queue[bytes] = asyncio.Queue()
        found: list[bytes] = []
        if await ask(self.wire, "ask hosts", lambda: self._question(EVERYBODY, body, answers)):
            try:
                async with asyncio.timeout(seconds):
                    while len(found) < enough:
                        found.append(await answers.get())
            except TimeoutError:
                pass
        return found

    def tell(self, body: bytes) -> None:
        self.wire.send("tell hosts", lambda: self._question(EVERYBODY, body, None))

    def _question(self, host: str, body: bytes, answers: asyncio.Queue[bytes] | None) -> bool:
        """On the server: hand the question on; whether anybody listens."""

        def reply(answer: bytes) -> None:
            if answers is not None:
                self.wire.receive("word", answers.put_nowait, answer)

        listeners = list(self.server.hosts.get(host, ()))
        for hear in listeners:
            hear(body, reply)
        return bool(listeners)

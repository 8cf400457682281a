"""A TCP proxy between a client and a server, that can be slow, cut every connection, fall silent, or lose one answer."""

from __future__ import annotations

import asyncio


class Proxy:
    """Async context manager; `url` is its address."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("nats://").rpartition(":")
        self._target = host, int(port)
        self.delay_seconds = 0.0
        self._lost: tuple[bytes, asyncio.Future[None]] | None = None
        self._open, self._flows = asyncio.Event(), asyncio.Event()
        self._open.set()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._downward: set[asyncio.StreamWriter] = set()  # to clients
        self._stays_down = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = "nats://127.0.0.1:%d" % self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._hang_up()
        for task in self._tasks:
            task.cancel()

    async def cut(self, down_seconds: float) -> None:
        """End all connections, and accept none for a while."""
        self._open.clear()
        self._hang_up()
        await asyncio.sleep(down_seconds)
        self._open.set()

    async def silence(self, seconds: float) -> None:
        """Keep the connections, and let nothing through for a while."""
        self._flows.clear()
        await asyncio.sleep(seconds)
        self._flows.set()

    def lose(self, marker: bytes, down: bool = False) -> asyncio.Future[None]:
        """The next words of the server that hold `marker` do not arrive: the connection ends instead. Done once that
        happened; with `down` no new connection is accepted until `up`."""
        self._lost = marker, asyncio.get_running_loop().create_future()
        self._stays_down = down
        return self._lost[1]

    def up(self) -> None:
        self._open.set()

    def _hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open.is_set():
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        self._downward.add(writer)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                if self._lost is not None and self._lost[0] in data and sink in self._downward:
                    self._lost[1].set_result(None)
                    self._lost = None
                    if self._stays_down:
                        self._open.clear()
                    return self._hang_up()
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()

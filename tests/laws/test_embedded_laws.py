"""The private server leaves no orphan and says what is wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from noria.broker import connect_broker
from noria.embedded import start_server
from noria.errors import BrokerUnavailable, NoriaError


async def test_a_killed_parent_leaves_no_orphan() -> None:
    code = (
        "import asyncio\nfrom noria.embedded import start_server\nasync def main():\n"
        " print((await start_server()).pid, flush=True)\n await asyncio.sleep(60)\nasyncio.run(main())"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 20))
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    async with asyncio.timeout(10):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.05)


async def test_a_taken_port_and_a_missing_server_are_named(tmp_path: Path) -> None:
    server = await start_server()
    with pytest.raises(NoriaError, match="in use"):
        await start_server(tmp_path, int(server.url.rpartition(":")[2]))
    await server.stop()
    assert not server.store_dir.exists()
    with pytest.raises(BrokerUnavailable, match="127.0.0.1"):
        await asyncio.wait_for(connect_broker(server.url.replace("//", "//me:secret@"), "x", connect_timeout=1), 8)


async def test_a_server_that_dies_while_one_connects_is_named(server_url: str) -> None:
    """It is BrokerUnavailable, after which workers try again, and nothing of the client library's."""
    over = asyncio.Event()

    async def greets_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = server_url.removeprefix("nats://").rpartition(":")
        back, there = await asyncio.open_connection(host, int(port))
        writer.write(await back.readline())  # INFO
        there.writelines([await reader.readline(), await reader.readline()])  # CONNECT, PING
        writer.write(await back.readline())  # PONG
        await over.wait()
        writer.close()
        there.close()

    async with await asyncio.start_server(greets_only, "127.0.0.1", 0) as proxy:
        address = "nats://127.0.0.1:%d" % proxy.sockets[0].getsockname()[1]
        with pytest.raises(BrokerUnavailable, match="while it was opened"):
            await connect_broker(address, "x", connect_timeout=0.5)
        over.set()

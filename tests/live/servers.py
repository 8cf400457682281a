"""A nats-server of a test's own, with a configuration that may change while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from noria import BrokerUnavailable, Noria
from noria.embedded import find_binary, free_port


class Server:
    """`url` without credentials; `say` is written beside address and store."""

    def __init__(self, home: Path) -> None:
        self._home, self.port = home, free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, say: str = "", jetstream: str = "") -> None:
        store = f'jetstream {{\n store_dir: "{self._home}/store"\n {jetstream}\n}}\n'
        (self._home / "nats.conf").write_text(f'listen: "127.0.0.1:{self.port}"\n{store}{say}\n')

    async def start(self, **options: str) -> None:
        """Until it answers who connects with `options`."""
        log = str(self._home / "server.log")
        self._process = subprocess.Popen([find_binary(), "-c", str(self._home / "nats.conf"), "-l", log], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while True:
            try:
                async with Noria.connect(self.url, **options):
                    return
            except BrokerUnavailable:
                assert self._process.poll() is None and time.monotonic() < end, "the server did not come up"

    def reload(self, say: str = "", jetstream: str = "") -> None:
        """Change the configuration under its clients."""
        assert self._process is not None
        self.configure(say, jetstream)
        os.kill(self._process.pid, signal.SIGHUP)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def server(home: Path) -> Iterator[Server]:
    made = Server(home)
    try:
        yield made
    finally:
        made.kill()

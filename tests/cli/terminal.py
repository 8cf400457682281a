"""A command in a terminal of its own: what it asks is awaited, then answered, as a person would."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
CTRL_C, CTRL_D, ENTER = "\x03", "\x04", "\r"
NORIA = [sys.executable, "-c", "from noria.cli.main import main; main()"]


class Terminal:
    """Input, output and errors are the terminal; what is typed may be a signal."""

    def __init__(self, *args: str) -> None:
        self._ours, theirs = os.openpty()
        self._seen, self._at = "", 0
        pipes = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        self._process = subprocess.Popen([*NORIA, *args], cwd=ROOT, preexec_fn=_lead, env={**os.environ, "TERM": "dumb"}, **pipes)
        os.close(theirs)

    def answer(self, question: str, answer: str, seconds: float = 25.0) -> None:
        """Type, once the question was shown behind what was answered before."""
        end = time.monotonic() + seconds
        while (found := self._seen.find(question, self._at)) < 0:
            assert self._read() and time.monotonic() < end, f"no {question!r} in {self._seen[self._at :]!r}"
        self._at = found + len(question)
        while answer == CTRL_C and not self._listens() and time.monotonic() < end:
            time.sleep(0.01)
        os.write(self._ours, answer.encode())

    def end(self, seconds: float = 25.0) -> tuple[int, str]:
        """(exit code, all that was shown). A command that does not end is killed, with the code -9."""
        end = time.monotonic() + seconds
        while self._read() and time.monotonic() < end:
            pass
        if self._process.poll() is None and time.monotonic() >= end:
            self._process.kill()
        code = self._process.wait(seconds)
        os.close(self._ours)
        return code, self._seen

    def _listens(self) -> bool:
        """Whether it waits for what is typed: a signal that comes just before a read does not interrupt it."""
        return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"

    def _read(self) -> bool:
        """Whether the command is still there, or may have left something unread."""
        ready, _, _ = select.select([self._ours], [], [], 0.1)
        try:
            more = os.read(self._ours, 65536) if ready else b""
        except OSError:  # the other side is closed
            return False
        self._seen += more.decode(errors="replace").replace("\r\n", "\n")
        return bool(more) or self._process.poll() is None


def _lead() -> None:
    """In the child: the terminal is its own, so that Ctrl-C reaches it."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


async def talk(*args: str, script: list[tuple[str, str]]) -> tuple[int, str]:
    """Run a command and answer what it asks, in this order: (exit code, what was shown)."""

    def converse() -> tuple[int, str]:
        terminal = Terminal(*args)
        try:
            for question, answer in script:
                terminal.answer(question, answer)
        except AssertionError:
            terminal.end(1.0)
            raise
        return terminal.end()

    return await asyncio.to_thread(converse)

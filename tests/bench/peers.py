"""The peers' environments: one virtual environment each, made on demand, kept in the build folder."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "bench"


class Absent(Exception):
    """A peer that cannot be had here, and why."""


@dataclass(frozen=True)
class Peer:
    """What to install, and the script that speaks to it."""

    script: str
    packages: tuple[str, ...]
    npm: str = ""
    binary: str = ""  # where npm leaves the server, as a pattern; given to the script as BENCH_<NAME>_SERVER


PEERS = {
    "dbos": Peer("on_dbos.py", ("dbos==3.4.0", "psutil")),
    "langgraph": Peer("on_langgraph.py", ("langgraph", "langgraph-checkpoint-sqlite", "psutil")),
    "restate": Peer(
        "on_restate.py", ("restate-sdk==1.3.0", "hypercorn", "aiohttp", "psutil"), "@restatedev/restate-server@1.7.12",
        "node_modules/@restatedev/restate-server-linux-*/bin/restate-server",
    ),
}  # fmt: skip


def prepare(name: str) -> tuple[list[str], dict[str, str]]:
    """(command without the workload, environment) of a peer. Raises Absent."""
    peer, home = PEERS[name], BUILD / f"env-{name}"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        _run(sys.executable, "-m", "venv", str(home))
        _run(str(python), "-m", "pip", "install", "-q", *peer.packages)
        if peer.npm:
            _run("npm", "install", "--silent", "--prefix", str(home), peer.npm)
        (home / "ready").touch()
    environment = {}
    if peer.binary:
        found = sorted(home.glob(peer.binary))
        if not found:
            raise Absent(f"{peer.npm} brought no server for this machine")
        environment[f"BENCH_{name.upper()}_SERVER"] = str(found[0])
    return [str(python), str(HERE / "contenders" / peer.script)], environment


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, env=dict(os.environ))
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise Absent(f"{command[0]}: {said[-1] if said else error}") from error

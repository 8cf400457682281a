"""Identities are made here and nowhere else."""

from __future__ import annotations

import hashlib
import itertools
import re

from noria.chance import token

RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
NAME = re.compile(r"[A-Za-z0-9_-]+")
NAMESPACE = re.compile(r"[a-z][a-z0-9-]*")


def run_id() -> str:
    """A new run id."""
    return token(16).hex()


def event_run_id(source: str, event_id: str) -> str:
    """The run id of a CloudEvent: the same for every delivery of it."""
    return "ce-" + hashlib.sha256(f"{source}\n{event_id}".encode()).hexdigest()[:40]


class Nonces:
    """Unique names of activations and messages of one process: a random prefix and a counter."""

    def __init__(self) -> None:
        self.prefix = token(6).hex()
        self._count = itertools.count(1)

    def next(self) -> str:
        return f"{self.prefix}-{next(self._count)}"


def maker(nonce: str) -> str:
    """The prefix of the process's nonces: its host's id."""
    return nonce.partition("-")[0]

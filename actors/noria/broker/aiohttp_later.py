"""Imports nats-py without aiohttp, which it needs for ws:// only and imports with itself wherever it is installed: that is
a third of the time in which a worker starts."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from typing import Any


class Later:
    """A module that is imported when something of it is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)


def import_nats() -> None:
    """Its websocket transport works as before. Nothing happens where nats or aiohttp is imported already, or none is there."""
    modules: dict[str, Any] = sys.modules
    if "nats" in modules or "aiohttp" in modules or find_spec("aiohttp") is None:
        return
    modules["aiohttp"] = None  # what looks for it now does not find it
    try:
        transport: Any = importlib.import_module("nats.aio.transport")
    finally:
        del modules["aiohttp"]
    transport.aiohttp, transport.multidict = Later("aiohttp"), Later("multidict")


import_nats()

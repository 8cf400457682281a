"""Is this worker alive, and is it ready? Over HTTP, for who watches processes; needs the extra `health`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from noria.client.noria import Noria
from noria.errors import DefinitionError


@asynccontextmanager
async def health(noria: Noria, port: int | None, host: str = "0.0.0.0") -> AsyncGenerator[None, None]:
    """Serve `/healthz` (200 as long as the loop turns) and `/readyz` (200 while connected and receiving, else 503 with the
    reason) on a port; nothing without one. Port 0 takes a free one."""
    if port is None:
        yield
        return
    try:
        from aiohttp import web
    except ImportError as error:
        raise DefinitionError("--health-port needs the package aiohttp: pip install 'noria[health]'") from error

    async def alive(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def ready(_: web.Request) -> web.Response:
        reason = why_not_ready(noria)
        return web.json_response({"status": reason or "ready"}, status=503 if reason else 200)

    site = web.Application()
    site.add_routes([web.get("/healthz", alive), web.get("/readyz", ready)])
    runner = web.AppRunner(site, handle_signals=False, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()


def why_not_ready(noria: Noria) -> str | None:
    """None when runs can come; else what is missing."""
    if not noria.broker.connected:
        return "not connected to NATS"
    return None if noria.workers else "no worker is receiving"

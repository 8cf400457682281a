"""Connecting: a first try that fails at once, then a connection that never gives up."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from nats.errors import Error as NatsError

from noria.broker.connection import Connection, shown
from noria.broker.wire import WireClient
from noria.errors import BrokerUnavailable, LimitExceeded, NoriaError
from noria.limits import PAYLOAD_MARGIN_BYTES

log = logging.getLogger("noria.broker")
OLDEST_SERVER = (2, 14)
CONNECT_SECONDS = 5
REFUSED_PAUSE_SECONDS = 1.0  # between two tries of a user whom the server refuses
FOR_EVER: dict[str, Any] = {"allow_reconnect": True, "max_reconnect_attempts": -1, "reconnect_time_wait": 0.1, "connect_timeout": 2}


async def open_connection(url: str, **options: Any) -> Connection:
    """Connect. Raises BrokerUnavailable when nobody is there, NoriaError when the server is too old, or takes too little."""
    connection: Connection | None = None
    last: Exception | None = None  # why the latest try failed: nats-py goes on to try until the time is up
    told = False  # that we are refused, since we were let in

    async def reconnected() -> None:
        nonlocal told
        told = False
        if connection is not None:
            log.warning("connected to %s again", connection.shown)
            connection.trouble = ""
            for callback in connection.on_reconnect:
                callback()

    async def lost() -> None:
        if connection is not None and not connection.client.is_closed:
            log.warning("the connection to %s is lost: it is tried again until it is back", connection.shown)

    async def failed(error: Exception) -> None:
        nonlocal last, told
        last = error
        log.debug("nats: %s", error)
        if connection is None or connection.deny(str(error)):
            return
        connection.trouble = words = str(error).removeprefix("nats: ").strip("'")
        if "auth" in words.lower():
            connection.trouble = f"NATS refuses this user ({words})"
            if not told:
                told = True
                log.error("%s at %s: give it its rights back, or start again with credentials that are right", connection.trouble, connection.shown)
            if not connection.client.is_connected:
                await asyncio.sleep(REFUSED_PAUSE_SECONDS)

    timeout, js = options.pop("connect_timeout", CONNECT_SECONDS), options.pop("js_prefix", "$JS.API")
    settings: dict[str, Any] = {"reconnected_cb": reconnected, "disconnected_cb": lost, "error_cb": failed, "pending_size": 64 << 20, **options}
    try:
        async with asyncio.timeout(timeout):
            client = await _connected(url, settings, timeout)
    except (OSError, TimeoutError, NatsError) as error:
        reason = str(last or error) or type(error).__name__
        raise BrokerUnavailable(f"cannot connect to NATS at {shown(url)}: {reason}. Start a server, or give its address: nats://HOST:PORT") from error
    version = client.connected_server_version
    if (version.major, version.minor) < OLDEST_SERVER:
        await client.close()
        found, needed = f"{version.major}.{version.minor}", "{}.{}".format(*OLDEST_SERVER)
        raise NoriaError(f"nats-server {found} at {shown(url)} is too old: Noria needs {needed} or newer (schedules)")
    if client.max_payload < 2 * PAYLOAD_MARGIN_BYTES:
        await client.close()
        least = 2 * PAYLOAD_MARGIN_BYTES
        raise LimitExceeded(f"max_payload of nats-server at {shown(url)} is {client.max_payload} bytes: Noria needs {least} or more")
    connection = Connection(client, url, js)
    try:
        async with asyncio.timeout(timeout):
            await connection.start()
    except (OSError, TimeoutError, NatsError) as error:
        await client.close()
        raise BrokerUnavailable(f"the connection to NATS at {shown(url)} broke while it was opened: {error or type(error).__name__}") from error
    return connection


async def _connected(url: str, settings: dict[str, Any], timeout: float) -> WireClient:
    client: Any = WireClient()
    servers = [part.strip() for part in url.split(",")]
    # told to reconnect for ever nats-py would never give up the first try either, so it is told afterwards
    await client.connect(servers, **{**settings, "allow_reconnect": False, "connect_timeout": timeout})
    client.options.update({name: settings.get(name, value) for name, value in FOR_EVER.items()})
    return client

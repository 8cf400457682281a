"""Waiting for a run to rest: one subscription per client for all runs that it waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from noria.actor.load import is_newest, load
from noria.clock import monotonic
from noria.contract.values import BAD_DATA, loads
from noria.errors import BrokerUnavailable, NewerFormat, NoWorker, RunNotFound
from noria.machine.state import ENDED
from noria.machine.view import settled, view
from noria.ports import ActorKey, Broker, RunKey

log = logging.getLogger("noria.client")
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 1.0, 5.0


class Waiting:
    """News of rests, handed to whoever waits; news are hints, and everybody reads for himself now and then."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._waiters: dict[RunKey, list[asyncio.Queue[bytes]]] = {}
        self._subscribed: dict[str, Callable[[], Awaitable[None]]] = {}
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        for stop in self._subscribed.values():
            await stop()
        self._subscribed.clear()

    async def until_settled(
        self, run: RunKey, begin: Callable[[], Awaitable[int]], timeout: float | None = None, *, ended: bool = False, look: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """The run's view once it rests for good having seen the command that `begin` sends (its sequence; 0: any), with
        `ended` once it ended. `look`: the news may be over, read at once. Raises TimeoutError, or NoWorker when nobody
        hosts the workflow; the command stays."""
        await self._listen(run.workflow)
        news: asyncio.Queue[bytes] = asyncio.Queue()
        self._waiters.setdefault(run, []).append(news)
        end = None if timeout is None else monotonic() + timeout
        try:
            after = await begin()
            pause = FIRST_LOOK_SECONDS if after and not look else 0.0
            while True:
                left = pause if end is None else min(pause, end - monotonic())
                found = await self._next(run, news, max(0.0, left), after, ended)
                if found is not None:
                    return found
                if end is not None and monotonic() >= end:
                    raise await self._too_late(run)
                pause = min(max(FIRST_LOOK_SECONDS, pause * 1.5), LONGEST_LOOK_SECONDS)
        finally:
            self._waiters[run].remove(news)
            if not self._waiters[run]:
                del self._waiters[run]

    async def _next(self, run: RunKey, news: asyncio.Queue[bytes], seconds: float, after: int, ended: bool) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(seconds):
                told = loads(await news.get())
            shown = told["view"]
            done = ENDED if ended else ENDED | {"suspended", "paused"}
            if shown is not None:
                if shown["status"] in done and told["in"] >= after > 0:  # without a command to wait for there may be a newer one
                    return shown
                if shown["status"] not in ENDED:
                    return None
        except TimeoutError:
            pass
        except BAD_DATA:
            log.warning("news of run %s are unreadable: read instead", run.run)
        try:
            loaded = await load(self._broker, ActorKey(*run))
            if loaded.deleted and not loaded.tree.root.started:
                raise RunNotFound(f"run {run.run!r} of workflow {run.workflow!r} was deleted")
            good = loaded.tree.over if ended else settled(loaded.tree, after)
            good = good and await is_newest(self._broker, ActorKey(*run), loaded.tree)
        except BrokerUnavailable:
            return None
        except NewerFormat as error:  # who hosts it can read it, and tells
            log.warning("run %s cannot be read here: %s", run.run, error)
            return None
        return view(loaded.tree, *run) if good else None

    async def _too_late(self, run: RunKey) -> Exception:
        if not await self._broker.commands.hosted(run.workflow):
            return NoWorker(f"no worker hosts workflow {run.workflow!r}; run {run.run!r} stays durable and waits for one")
        return TimeoutError(f"run {run.run!r} did not come to rest in time; it goes on")

    async def _listen(self, workflow: str) -> None:
        async with self._lock:
            if workflow not in self._subscribed:
                self._subscribed[workflow] = await self._broker.news.on_rests(workflow, self._told)

    def _told(self, run: RunKey, body: bytes) -> None:
        for news in self._waiters.get(run, ()):
            news.put_nowait(body)

"""Waiting for a run to rest: one subscription per client for all runs that it waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from noria.actor.load import is_newest, load
from noria.clock import monotonic
from noria.contract import envelopes
from noria.contract.facts import Finished, HandedOver, Rested, StepSuspended, StepWaiting, TakenOver
from noria.contract.values import BAD_DATA, loads
from noria.errors import BrokerUnavailable, NewerFormat, NoriaError, NoWorker, RunNotFound
from noria.machine.state import ENDED
from noria.machine.view import settled, view
from noria.ports import ActorKey, Broker, Closed, RunKey, Stored, deadline

log = logging.getLogger("noria.client")
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 1.0, 5.0
LAST_LOOK_SECONDS = 2.5  # at the end of a time-out: at the run, and whether anybody hosts it
LOOKS_UNREAD = 4  # in a row that find a run at the same place, from which it goes on by itself, before one reads all the same


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
        async with self.within(run, timeout):
            return await self._until_settled(run, begin, timeout, ended, look)

    @asynccontextmanager
    async def within(self, run: RunKey, timeout: float | None) -> AsyncGenerator[None, None]:
        """Nothing in it takes much longer than `timeout` seconds: what NATS refuses by then raises why, and what it does not
        answer at all a TimeoutError."""
        if timeout is None:
            yield
            return
        limit, token = asyncio.timeout(timeout + LAST_LOOK_SECONDS), deadline.set(monotonic() + timeout)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError(f"NATS did not answer in time{self._trouble}; if it has the command, run {run.run!r} goes on") from None
        finally:
            deadline.reset(token)

    @property
    def _trouble(self) -> str:
        return f" ({self._broker.trouble})" if self._broker.trouble else ""

    async def _until_settled(
        self, run: RunKey, begin: Callable[[], Awaitable[int]], timeout: float | None, ended: bool, look: bool
    ) -> dict[str, Any]:
        end = None if timeout is None else monotonic() + timeout
        await self._listen(run.workflow)
        news: asyncio.Queue[bytes] = asyncio.Queue()
        self._waiters.setdefault(run, []).append(news)
        try:
            after = await begin()
            at_once = look or not after
            pause, watch = 0.0 if at_once else FIRST_LOOK_SECONDS, _Watch(self._broker, run, after, ended, at_once)
            while True:
                left = pause if end is None else min(pause, end - monotonic())
                found = await watch.next(news, max(0.0, left), left < pause)
                if found is not None:
                    return found
                if end is not None and monotonic() >= end:
                    raise await self._too_late(run, watch.trouble)
                pause = min(max(FIRST_LOOK_SECONDS, pause * 1.5), LONGEST_LOOK_SECONDS)
        finally:
            self._waiters[run].remove(news)
            if not self._waiters[run]:
                del self._waiters[run]

    async def _too_late(self, run: RunKey, trouble: str) -> Exception:
        if not await self._broker.commands.hosted(run.workflow):
            return NoWorker(f"no worker hosts workflow {run.workflow!r}; run {run.run!r} stays durable and waits for one")
        return TimeoutError(f"run {run.run!r} did not come to rest in time; it goes on{trouble and f'. It could not be read: {trouble}'}")

    async def _listen(self, workflow: str) -> None:
        async with self._lock:
            if workflow not in self._subscribed:
                self._subscribed[workflow] = await self._broker.news.on_rests(workflow, self._told)

    def _told(self, run: RunKey, body: bytes) -> None:
        for news in self._waiters.get(run, ()):
            news.put_nowait(body)


class _Watch:
    """One wait. The root's last fact and last command tell mostly that there is nothing to read: nothing came since it was
    read, whatever the children do, or the run is at a place from which it goes on by itself. If of many runs that wake at
    one time each were read meanwhile, the server would take longer for that than for the runs.

    `at_once`: the first look reads, since the news may be over.
    """

    def __init__(self, broker: Broker, run: RunKey, after: int, ended: bool, at_once: bool) -> None:
        self._broker, self._run, self._key, self._after, self._ended = broker, run, ActorKey(*run), after, ended
        self._at_once = at_once
        self._read: tuple[int, int] | None = None  # the root's last fact and command in what was read
        self._place, self._looks = (0, 0), 0  # they as of the last looks, and how many looks found them so
        self.trouble = ""  # why the last look saw nothing

    async def next(self, news: asyncio.Queue[bytes], seconds: float, is_last: bool) -> dict[str, Any] | None:
        """The run's view once it is as it was waited for; None: not by this news, or in this time. The last look reads."""
        try:
            async with asyncio.timeout(seconds):
                told = loads(await news.get())
            shown = told["view"]
            done = ENDED if self._ended else ENDED | {"suspended", "paused"}
            if shown is not None:
                if shown["status"] in done and told["in"] >= self._after > 0:  # without a command to wait for there may be a newer one
                    return shown
                if shown["status"] not in ENDED:
                    return None
        except TimeoutError:
            pass
        except BAD_DATA:
            log.warning("news of run %s are unreadable: read instead", self._run.run)
        self.trouble = ""
        try:
            return await self._look(is_last)
        except Closed:
            raise
        except BrokerUnavailable as error:
            self.trouble = str(error)
            return None
        except NewerFormat as error:  # who hosts it can read it, and tells
            log.warning("run %s cannot be read here: %s", self._run.run, error)
            return None

    async def _look(self, is_last: bool = False) -> dict[str, Any] | None:
        if not self._at_once and await self._is_on_its_way(is_last):
            return None
        self._at_once, self._read = False, None
        loaded = await load(self._broker, self._key)
        tree = loaded.tree
        if loaded.deleted and not tree.root.started:
            raise RunNotFound(f"run {self._run.run!r} of workflow {self._run.workflow!r} was deleted")
        if not (tree.over if self._ended else settled(tree, self._after)):
            self._read = tree.root.last, tree.newest_command
            return None
        return view(tree, *self._run) if await is_newest(self._broker, self._key, tree) else None

    async def _is_on_its_way(self, is_last: bool) -> bool:
        fact, command = await asyncio.gather(self._broker.log.last(self._key), self._broker.commands.last(self._key))
        place = fact.sequence if fact is not None else 0, command.sequence if command is not None else 0
        self._place, self._looks = place, self._looks + 1 if place == self._place else 0
        return place == self._read or (self._looks < LOOKS_UNREAD and not is_last and self._goes_on(fact, command))

    def _goes_on(self, fact: Stored | None, command: Stored | None) -> bool:
        """Whether what came to the run last says that it is not as it was waited for, and has something to do. False: it may
        be, or one would have to read more."""
        if command is None:
            return False
        kind = command.body[:32]
        if fact is None:
            return b'"kind":"start"' in kind
        try:
            message = envelopes.decode(fact.body)
        except (NoriaError, *BAD_DATA):  # it is in the blobs, say
            return False
        rest = message.facts[-1]
        if isinstance(rest, StepWaiting) or (isinstance(rest, Rested) and rest.status == "waiting"):
            return command.sequence <= message.in_seen or b'"kind":"timer"' in kind  # a cancel ends it where it rests
        if isinstance(rest, (StepSuspended, Rested)):
            return message.in_seen < self._after == command.sequence
        return not any(isinstance(f, (Finished, TakenOver, HandedOver)) for f in message.facts)  # those may come behind an end

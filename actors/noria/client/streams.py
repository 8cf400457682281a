"""Streams: the events of a run, live or from its log, and its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from math import inf
from typing import TYPE_CHECKING, Any

from noria.actor import owned
from noria.actor.load import is_deleted, load
from noria.client.events import EventReader
from noria.clock import monotonic
from noria.contract.events import RunEvent
from noria.contract.results import RunResult
from noria.errors import BrokerUnavailable, NoriaError, RunNotFound, ValueUnavailable
from noria.limits import QUIET_SECONDS
from noria.machine.state import ENDED, Tree
from noria.machine.view import settled, view
from noria.ports import ActorKey, RunKey, Stored

if TYPE_CHECKING:
    from noria.client.noria import Noria


class RunStream:
    """Iterate it for events, await `result()` for the outcome; either alone works, in any order.

    What the command raises, and a time-out, are raised by `result()`; the iteration then ends.
    """

    def __init__(
        self, noria: Noria, key: RunKey, as_result: Callable[[dict[str, Any]], RunResult], begin: Callable[[], Awaitable[int]] | None,
        close_on_suspend: bool, *, resumes: bool = False, timeout: float | None = None,
    ) -> None:  # fmt: skip
        """`begin` sends the command and gives its sequence; None: somebody else's run is observed. `resumes`: the events
        from the command on are wanted, not those before it."""
        self._noria, self._broker, self._key, self._as_result = noria, noria.broker, key, as_result
        self._observes, self._command = begin is None, begin or self._look
        self._close_on_suspend, self._resumes, self._timeout = close_on_suspend, resumes, timeout
        self._begun: asyncio.Future[int] | None = None
        self._deadline: float | None = None
        self._aged_out: Tree | None = None
        self._outcome: dict[str, Any] | None = None  # the run's view at the end of the iteration

    async def begin(self) -> int:
        """Send the command, once; its sequence."""
        if self._begun is None:
            self._deadline = None if self._timeout is None else monotonic() + self._timeout
            self._begun = asyncio.ensure_future(self._command())
        return await asyncio.shield(self._begun)

    async def _look(self) -> int:
        """An observer sends nothing, but looks whether the run's facts aged out: then its record tells of them. Raises RunNotFound for a
        run that was deleted."""
        root = ActorKey(*self._key)
        if await self._broker.log.last(root) is None:
            loaded = await load(self._broker, root)
            if loaded.deleted:
                raise RunNotFound(f"run {self._key.run!r} of workflow {self._key.workflow!r} was deleted")
            known = loaded.tree.root.last
            # all from the record, and the log still without a fact: not a run that began while this looked
            if known and known == loaded.recorded and await self._broker.log.last(root) is None:
                self._aged_out = loaded.tree
        return 0

    @property
    def was_read(self) -> bool:
        """Whether the outcome is known from the events that were read, to the end."""
        return self._outcome is not None

    async def result(self) -> RunResult:
        """The outcome of the stretch that ends the stream."""
        if self._outcome is not None:  # whatever became of the run since
            return self._as_result(self._outcome)
        late = self._begun is not None and self._begun.done()
        left, waiting = self._left(), self._noria.waiting
        async with waiting.within(self._key, left):
            await self._broker.provision()
            return self._as_result(await waiting.until_settled(self._key, self.begin, left, ended=not self._close_on_suspend, look=late))

    def _left(self) -> float | None:
        return self._timeout if self._deadline is None else max(0.0, self._deadline - monotonic())

    def __aiter__(self) -> AsyncGenerator[RunEvent, None]:
        return self._events()

    async def _events(self) -> AsyncGenerator[RunEvent, None]:
        try:
            async with self._noria.waiting.within(self._key, self._left()):
                await self._broker.provision()
                seed = (await load(self._broker, ActorKey(*self._key))).tree if self._resumes and self._begun is None else None
                try:
                    sequence = await self.begin()
                except ValueUnavailable:
                    raise
                except NoriaError as error:
                    if self._observes and isinstance(error, BrokerUnavailable):
                        raise  # no command of ours, whose result would tell
                    return
        except TimeoutError:
            return
        if seed is not None and max(seed.cursor, seed.newest_command) >= sequence:
            seed = None  # of two rivals the other was first: what came since is wanted too
        reader = EventReader(self._broker, self._key, seed, sequence if self._resumes else 0)
        for event in reader.restored(self._aged_out) if self._aged_out is not None else ():
            yield event
            if await self._is_last(event, reader, sequence):
                return
        known = seed is not None or self._aged_out is not None
        entries = self._entries(reader.position if known else 0 if self._resumes or self._observes else sequence - 1)
        try:
            async for entry in entries:
                for event in await reader.read(entry):
                    # an observer may have come when some of the log was gone
                    if not self._observes and await self._is_last(event, reader, sequence):
                        self._outcome = view(reader.tree, *self._key)
                    yield event
                    if await self._is_last(event, reader, sequence):
                        return
        finally:
            await entries.aclose()

    async def _entries(self, after: int) -> AsyncGenerator[Stored, None]:
        """What is stored of the run, until the time is up or the run was deleted."""
        source, coming = self._broker.log.follow(self._key, after), None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(source))
                left = inf if self._deadline is None else max(0.0, self._deadline - monotonic())
                await asyncio.wait((coming,), timeout=min(left, QUIET_SECONDS))
                if coming.done():
                    entry, coming = coming.result(), None
                    yield entry
                elif left <= QUIET_SECONDS or await self._is_gone():
                    return
        finally:
            if coming is not None:
                await owned.stop((coming,))
            await source.aclose()

    async def _is_gone(self) -> bool:
        try:
            return await is_deleted(self._broker, self._key)
        except BrokerUnavailable:
            return False

    async def _is_last(self, event: RunEvent, reader: EventReader, sequence: int) -> bool:
        if event.type != "workflow-finish":
            return False
        ended = event.data["status"] in ENDED
        if not ended and not self._close_on_suspend:
            return False
        if not self._observes:  # a stretch that did not know of the command yet is not the one it began
            return ended or reader.seen >= sequence
        tree = (await load(self._broker, ActorKey(*self._key))).tree  # a past suspension was resumed, a past end travelled from
        return tree.root.last <= event.sequence and settled(tree)

"""Cancelling a run: when the call returns it is canceled, or it had ended before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noria import ids
from noria.actor.load import load_newest
from noria.clock import monotonic, now
from noria.contract import commands
from noria.errors import NoWorker, RunNotFound
from noria.limits import CANCEL_LOOK_SECONDS, PARKED_CANCEL_SECONDS
from noria.machine.state import ENDED, RESTING, Tree
from noria.machine.view import canceled_at_rest
from noria.ports import ActorKey, RunKey

if TYPE_CHECKING:
    from noria.client.noria import Noria


class Cancelling:
    """One call of `Run.cancel`."""

    def __init__(self, noria: Noria, run: RunKey) -> None:
        self._noria, self._broker, self._run = noria, noria.broker, run
        self._sequence = 0  # of the command, once it is sent
        self._of: str | None = None

    async def cancel(self, timeout: float | None) -> None:
        """Raises RunNotFound, and NoWorker or TimeoutError past `timeout` seconds; the command stays."""
        tree = await self._read()
        if not tree.root.started:
            raise RunNotFound(f"there is no run {self._run.run!r} of workflow {self._run.workflow!r}")
        self._of = tree.traceparent or ""
        if tree.over:
            return
        if tree.root.status in RESTING - ENDED:
            self._sequence = tree.cancel if canceled_at_rest(tree) else await self._send()
            tree = await self._read()
            if canceled_at_rest(tree):  # by the command alone, whoever hosts it next; its end needs a worker
                if not await self._broker.commands.hosted(self._run.workflow):
                    return
                timeout = PARKED_CANCEL_SECONDS if timeout is None else min(timeout, PARKED_CANCEL_SECONDS)
        await self._wait(None if timeout is None else monotonic() + timeout)

    async def _wait(self, end: float | None) -> None:
        """Until the run is canceled, or was and then sent back by somebody: the cancel is as done as it will be."""
        await self._send()  # its answer may be longer in coming than one look
        while True:
            left = CANCEL_LOOK_SECONDS if end is None else min(CANCEL_LOOK_SECONDS, max(0.0, end - monotonic()))
            try:
                await self._noria.waiting.until_settled(self._run, self._send, left, ended=True, look=True)
                return
            except (NoWorker, TimeoutError):
                tree = await self._read()
                if canceled_at_rest(tree) or tree.travelled > self._sequence:
                    return
                if end is not None and monotonic() >= end:
                    raise

    async def _send(self) -> int:
        if not self._sequence:
            with self._noria.traced("cancel", self._run, of=self._of) as traced:
                command = commands.encode(commands.Cancel(ids.run_id(), now(), traced))
                self._sequence = await self._broker.commands.send(ActorKey(*self._run), command)
            self._broker.news.nudge(self._run, "client")
        return self._sequence

    async def _read(self) -> Tree:
        return (await load_newest(self._broker, ActorKey(*self._run))).tree

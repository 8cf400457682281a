"""All runs and workflows of a namespace."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from noria import ids
from noria.actor.load import glance, load, load_newest, look_closer
from noria.actor.retention import forget
from noria.client.catalogued import Catalogued
from noria.clock import now
from noria.contract.names import checked_workflow
from noria.contract.results import RunPage, RunRecord, RunSummary, run_record, when
from noria.contract.typed import is_time
from noria.contract.values import as_dict, loads
from noria.errors import InvalidInput, NewerFormat, NoriaError, RunNotFound, RunStillActive, ValueUnavailable, choices
from noria.limits import READ_AHEAD, SENT_AT_ONCE, TOMBSTONE_SECONDS, YOUNG_SECONDS
from noria.machine.state import ENDED
from noria.machine.view import status, summary, view
from noria.ports import ActorKey, RunKey
from noria.workflow.builder import Workflow

if TYPE_CHECKING:
    from noria.client.noria import Noria

log = logging.getLogger("noria.client")

ACTIVE = ("running", "pending", "waiting")
STATUSES = ("pending", "running", "waiting", "suspended", "paused", "success", "failed", "canceled", "tripwire")


class Runs:
    """`noria.runs`."""

    def __init__(self, noria: Noria) -> None:
        self._noria = noria

    async def get(self, run_id: str, workflow: Workflow | str | None = None, *, nested: bool = True) -> RunRecord | None:
        """The run as it is now, None if it is unknown; with `nested` the steps of nested workflows as "ship.pack"."""
        broker = self._noria.broker
        await broker.provision()
        key = await self._find(run_id, workflow)
        if key is None:
            return None
        loaded = await load_newest(broker, ActorKey(*key))
        known = workflow if isinstance(workflow, Workflow) else self._noria.registry.get(key.workflow)
        if loaded.deleted or not loaded.tree.root.started or _expired(loaded.tree.expires_at):
            return None
        if status(loaded.tree) in ("running", "pending"):
            await look_closer(broker, ActorKey(*key), loaded.tree)
        shown = view(loaded.tree, *key, stored=True, nested=nested)
        return run_record(shown, known.parse_output if known is not None else None)

    async def _find(self, run_id: str, workflow: Workflow | str | None) -> RunKey | None:
        if not ids.RUN_ID.fullmatch(run_id):
            return None
        if workflow is not None:
            return RunKey(_name(workflow), run_id)
        found = await self._noria.broker.commands.find(run_id)
        if not found:
            found = [key for key, _ in await self._noria.broker.records.summaries() if key.run == run_id]
        if len(found) > 1:
            raise InvalidInput(f"several workflows have a run {run_id!r}: name one of {choices(sorted(key.workflow for key in found))}")
        return found[0] if found else None

    async def list(
        self, workflow: Workflow | str | None = None, *, status: str | None = None, resource_id: str | None = None,
        since: datetime | None = None, until: datetime | None = None, limit: int = 100, offset: int = 0,
    ) -> RunPage:  # fmt: skip
        """A page of the runs that match, newest first, pending ones included; created at or after `since`, before `until`.
        Raises InvalidInput."""
        if status is not None and status not in STATUSES:
            raise InvalidInput(f"status {status!r}: choose one of {choices(STATUSES)}")
        if limit < 0 or offset < 0:
            raise InvalidInput(f"limit {limit} and offset {offset}: neither may be negative")
        after, before = _epoch("since", since), _epoch("until", until)
        await self._noria.broker.provision()
        rows = [
            (line.get("created_at") or 0.0, key.run, key, line)
            for key, line in (await self._lines(None if workflow is None else _name(workflow))).items()
            if (status is None or line["status"] == status) and (resource_id is None or line.get("resource_id") == resource_id)
            and (after is None or (line.get("created_at") or 0.0) >= after) and (before is None or (line.get("created_at") or 0.0) < before)
        ]  # fmt: skip
        rows.sort(key=lambda row: row[:2], reverse=True)
        return RunPage([_summary(key, line) for *_, key, line in rows[offset : offset + limit]], len(rows))

    async def _lines(self, workflow: str | None) -> dict[RunKey, dict[str, Any]]:
        """The line of every run. A record's is read again when commands came after it, or when there is none yet."""
        broker = self._noria.broker
        summaries, started = await asyncio.gather(broker.records.summaries(workflow), broker.commands.started(workflow))
        lines = {key: line for key, text in summaries if (line := _line(text)) is not None}
        stale = [k for k, line in lines.items() if line["status"] not in ENDED and started.get(k) != line.get("commands")]
        fresh = [k for k in started if k not in lines]
        for batch in (keys[at : at + READ_AHEAD] for keys in (stale, fresh) for at in range(0, len(keys), READ_AHEAD)):
            for key, line in zip(batch, await asyncio.gather(*(self._read(k, lines.get(k)) for k in batch)), strict=True):
                if line is None:
                    lines.pop(key, None)
                else:
                    lines[key] = line
        return {key: line for key, line in lines.items() if not _expired(line.get("expires_at"))}

    async def _read(self, key: RunKey, before: dict[str, Any] | None) -> dict[str, Any] | None:
        """The line of a run as it is now, as it was `before` when that cannot be read; None when there is none."""
        known = before is not None
        try:
            loaded = await (load if known else glance)(self._noria.broker, ActorKey(*key))
            tree = loaded.tree
            if not known and status(tree) == "pending" and now() - (tree.created_at or 0.0) < YOUNG_SECONDS:
                await look_closer(self._noria.broker, ActorKey(*key), tree)  # in its first step, say, and without a record yet
        except (NewerFormat, ValueUnavailable) as error:
            log.warning("run %s of workflow %s is not listed as it is now: %s", key.run, key.workflow, error)
            return before
        return summary(tree) if tree.root.started and not loaded.deleted else None

    async def misfits(self) -> list[tuple[RunKey, str]]:
        """The runs that the worker which saw them last could not host, and why."""
        broker, found = self._noria.broker, list[tuple[RunKey, str]]()
        for key, text in await broker.records.summaries():
            if "misfit" in (_line(text) or {}):
                try:
                    reason = (await load(broker, ActorKey(*key))).tree.misfit
                except (NewerFormat, ValueUnavailable) as error:
                    reason = str(error)
                if reason is not None:
                    found.append((key, reason))
        return found

    async def delete(self, run_id: str, workflow: Workflow | str | None = None, *, force: bool = False) -> None:
        """Remove log, record, blobs and timers. Raises RunNotFound, or RunStillActive unless it ended or `force`, which removes
        what cannot be read, too."""
        broker = self._noria.broker
        await broker.provision()
        key = await self._find(run_id, workflow)
        if key is None:
            raise RunNotFound(f"there is no run {run_id!r}")
        try:
            await self._end(key, force)
        except ValueUnavailable as error:
            if not force:
                raise ValueUnavailable(f"{error}; delete with force=True removes the run unread") from error
        await broker.records.delete(key, TOMBSTONE_SECONDS)
        await forget(broker, key)

    async def _end(self, key: RunKey, force: bool) -> None:
        """See to it that the run has ended, or is canceled."""
        broker = self._noria.broker
        loaded = await load_newest(broker, ActorKey(*key))
        if loaded.deleted or not loaded.tree.root.started:
            raise RunNotFound(f"there is no run {key.run!r}")
        if status(loaded.tree) in ENDED:
            return
        if not force:
            await look_closer(broker, ActorKey(*key), loaded.tree)
            raise RunStillActive(f"run {key.run!r} is {status(loaded.tree)}: cancel it first, or delete it with force=True")
        if await broker.commands.hosted(key.workflow):
            await self._noria.create_run(key.workflow, key.run).cancel()

    async def restart_active(self, workflow: Workflow | str | None = None) -> list[str]:
        """Make sure that every active run has a host, without waiting for them; their ids, oldest first."""
        lines = await self._lines(None if workflow is None else _name(workflow))
        active = sorted((line.get("created_at") or 0.0, key) for key, line in lines.items() if line["status"] in ACTIVE)
        for at in range(0, len(active), SENT_AT_ONCE):
            handles = [self._noria.create_run(*key) for _, key in active[at : at + SENT_AT_ONCE]]
            await asyncio.gather(*(handle.send_restart() for handle in handles))
        return [key.run for _, key in active]


class Workflows:
    """`noria.workflows`."""

    def __init__(self, noria: Noria) -> None:
        self._noria = noria
        self.catalogued = Catalogued(self)

    async def list(self) -> list[dict[str, Any]]:
        """Every workflow that was ever registered."""
        await self._noria.broker.provision()
        found: Mapping[str, bytes] = await self._noria.broker.catalogue.list()
        every = list[dict[str, Any]]()
        for name in sorted(found):
            try:
                every.append(_description(name, found[name]))
            except NoriaError as error:
                log.warning("%s", error)
        return every

    async def get(self, id: str) -> dict[str, Any] | None:
        """Graph, schemas and version of a workflow; None if it is unknown. Raises NoriaError for an entry that is none."""
        await self._noria.broker.provision()
        body = await self._noria.broker.catalogue.get(id) if ids.NAME.fullmatch(id) else None
        return None if body is None else _description(id, body)


def _description(id: str, body: bytes) -> dict[str, Any]:
    try:
        found = as_dict(loads(body))
    except ValueError:
        found = None
    if found is None or found.get("id") != id or as_dict(found.get("graph")) is None:
        raise NoriaError(f"the catalogue's entry of workflow {id!r} is unreadable: a worker of the workflow writes it anew when it starts")
    return found


def _name(workflow: Workflow | str) -> str:
    return checked_workflow(workflow.id if isinstance(workflow, Workflow) else workflow)


def _expired(at: float | None) -> bool:
    return at is not None and now() > at


def _line(text: str) -> dict[str, Any] | None:
    """A summary as it was written; None for anything else."""
    try:
        line = as_dict(loads(text))
    except ValueError:
        return None
    times = [line.get(name) for name in ("created_at", "started_at", "ended_at")] if line is not None else []
    readable = line is not None and isinstance(line.get("status"), str) and all(t is None or is_time(t) for t in times)
    return line if readable else None


def _epoch(name: str, moment: datetime | None) -> float | None:
    if moment is not None and moment.tzinfo is None:
        raise InvalidInput(f"{name} needs an aware datetime: give it a time zone")
    return None if moment is None else moment.timestamp()


def _summary(key: RunKey, line: Mapping[str, Any]) -> RunSummary:
    times = (when(line.get("created_at")), when(line.get("started_at")), when(line.get("ended_at")))
    return RunSummary(key.run, key.workflow, line["status"], *times, line.get("resource_id"))

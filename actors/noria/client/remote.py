"""The client by the control API: the same verbs and exceptions, for those who may not read or write the streams."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import Any

from noria.client.dead import Dead
from noria.client.noria import Noria
from noria.client.operations import Infra
from noria.client.remote_run import Api, RemoteRun
from noria.client.run import Run
from noria.client.runs import ACTIVE, Runs, Workflows
from noria.client.schedules import Schedules
from noria.contract.control import read
from noria.contract.results import RunPage, RunRecord, RunSummary, typed
from noria.contract.schedules import ScheduleInfo
from noria.contract.values import as_dict
from noria.errors import NoriaError, NoWorker, RunNotActive, RunNotFound
from noria.limits import API_WAIT_SECONDS, BULK_AT_ONCE, LIST_PAGE
from noria.ports import Broker, Letter
from noria.worker import Worker
from noria.workflow.builder import Workflow, id_of

log = logging.getLogger("noria.client")


class RemoteNoria(Noria):
    """`Noria.connect(via="api")`. It hosts nothing and touches no stream."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self.api = Api(broker)
        self.runs, self.workflows, self.schedules = RemoteRuns(self, self.api), RemoteWorkflows(self, self.api), RemoteSchedules(self, self.api)
        self.dead, self.infra = RemoteDead(self, self.api), RemoteInfra(broker)

    def create_run(self, workflow: Workflow | str, run_id: str | None = None, resource_id: str | None = None) -> Run:
        return RemoteRun(self, self.api, workflow, run_id, resource_id)

    def worker(self, *workflows: Workflow, **options: Any) -> Worker:
        raise NoriaError("a worker needs the streams: connect without via='api'")

    async def doctor(self) -> list[tuple[str, bool, str]]:
        names = [found["id"] for found in await self.workflows.list()]
        return [("control API", True, f"namespace {self.namespace}, workflows: {', '.join(names) or 'none'}")]


class RemoteRuns(Runs):
    """`noria.runs` by the control API."""

    def __init__(self, noria: RemoteNoria, api: Api) -> None:
        super().__init__(noria)
        self._api = api

    async def get(self, run_id: str, workflow: Workflow | str | None = None, *, nested: bool = True) -> RunRecord | None:
        try:
            record = read(RunRecord, await self._api.ask("get", run_id=run_id, workflow=id_of(workflow), nested=nested))
        except RunNotFound:
            return None
        return typed(record, workflow.parse_output if isinstance(workflow, Workflow) else None)

    async def list(
        self, workflow: Workflow | str | None = None, *, status: str | None = None, resource_id: str | None = None,
        since: datetime | None = None, until: datetime | None = None, limit: int = 100, offset: int = 0,
    ) -> RunPage:  # fmt: skip
        answer = await self._api.ask(
            "list", workflow=id_of(workflow), status=status, resource_id=resource_id, since=since, until=until, limit=limit, offset=offset
        )
        return read(RunPage, answer)

    async def delete(self, run_id: str, workflow: Workflow | str | None = None, *, force: bool = False) -> None:
        await self._api.ask("delete", within=API_WAIT_SECONDS, run_id=run_id, workflow=id_of(workflow), force=force)

    async def restart_active(self, workflow: Workflow | str | None = None) -> list[str]:
        found: list[RunSummary] = []
        for status in ACTIVE:
            while (page := await self.list(workflow, status=status, limit=LIST_PAGE, offset=sum(r.status == status for r in found))).runs:
                found += page.runs
        found.sort(key=lambda run: (run.created_at.timestamp() if run.created_at else 0.0, run.run_id))
        for at in range(0, len(found), BULK_AT_ONCE):
            await asyncio.gather(*(self._restart(run) for run in found[at : at + BULK_AT_ONCE]))
        return [run.run_id for run in found]

    async def _restart(self, run: RunSummary) -> None:
        """Send the command, and wait for nothing."""
        try:
            await self._api.ask("restart", run_id=run.run_id, workflow=run.workflow_id, timeout=0)
        except (TimeoutError, NoWorker, RunNotActive) as error:
            log.debug("%s", error)


class RemoteWorkflows(Workflows):
    """`noria.workflows` by the control API."""

    def __init__(self, noria: RemoteNoria, api: Api) -> None:
        super().__init__(noria)
        self._api = api

    async def list(self) -> list[dict[str, Any]]:
        return await self._api.ask("workflows")

    async def get(self, id: str) -> dict[str, Any] | None:
        return as_dict(await self._api.ask("workflows", id=id))


class RemoteSchedules(Schedules):
    """`noria.schedules` by the control API."""

    def __init__(self, noria: RemoteNoria, api: Api) -> None:
        super().__init__(noria)
        self._api = api

    async def list(self, workflow: Workflow | str | None = None) -> list[ScheduleInfo]:
        return [read(ScheduleInfo, found) for found in await self._api.ask("schedules", workflow=id_of(workflow))]

    async def pause(self, id: str, workflow: Workflow | str | None = None) -> None:
        await self._api.ask("schedules", action="pause", id=id, workflow=id_of(workflow))

    async def resume(self, id: str, workflow: Workflow | str | None = None) -> None:
        await self._api.ask("schedules", action="resume", id=id, workflow=id_of(workflow))

    async def run(self, id: str, workflow: Workflow | str | None = None, *, request_id: str | None = None) -> str:
        return (await self._api.ask("schedules", action="run", id=id, workflow=id_of(workflow), request_id=request_id))["run_id"]


class RemoteDead(Dead):
    """`noria.dead` by the control API."""

    def __init__(self, noria: RemoteNoria, api: Api) -> None:
        super().__init__(noria)
        self._api = api

    async def list(
        self, *, kind: str | None = None, workflow: str | None = None, after: int = 0, limit: int = 100
    ) -> list[Letter]:
        found = await self._api.ask("dead", kind=kind, workflow=workflow, after=after, limit=limit)
        return [Letter(**{**{k: v for k, v in letter.items() if k in Letter._fields}, "body": letter["body"].encode()}) for letter in found]

    async def replay(self, sequence: int, *, request_id: str | None = None) -> str | None:
        return (await self._api.ask("dead", replay=sequence, request_id=request_id))["run_id"]


class RemoteInfra(Infra):
    """Streams are not an operator's."""

    async def plan(self) -> list[str]:
        raise NoriaError("the streams are not reached by the control API: connect without via='api'")

    async def apply(self) -> list[str]:
        return await self.plan()

"""`noria.schedules`: what is planned, and what an operator may do about it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from noria import ids
from noria.clock import aware, now
from noria.contract import schedules as stored
from noria.contract.schedules import ScheduleInfo
from noria.errors import InvalidInput, choices
from noria.ports import Refused, StoredSchedule
from noria.triggers.schedules import as_cron, put
from noria.workflow.builder import Workflow, id_of

if TYPE_CHECKING:
    from noria.client.noria import Noria


class Schedules:
    """Schedules of the namespace. `workflow` is needed only where two workflows have a schedule of the same id."""

    def __init__(self, noria: Noria) -> None:
        self._noria = noria

    async def list(self, workflow: Workflow | str | None = None) -> list[ScheduleInfo]:
        """Every schedule that workers declared."""
        await self._noria.broker.provision()
        found = await self._noria.broker.schedules.every(id_of(workflow))
        return [await self._info(schedule) for schedule in sorted(found, key=lambda s: (s.workflow, s.id))]

    async def pause(self, id: str, workflow: Workflow | str | None = None) -> None:
        """No more ticks, through restarts and redeploys, until it is resumed. Raises InvalidInput for an unknown one."""
        await self._set(id, workflow, paused=True)

    async def resume(self, id: str, workflow: Workflow | str | None = None) -> None:
        """Tick again, from now on: what was missed is not made up for. Raises InvalidInput for an unknown one."""
        await self._set(id, workflow, paused=False)

    async def run(self, id: str, workflow: Workflow | str | None = None, *, request_id: str | None = None) -> str:
        """Start a run now, whatever the overlap, also of a paused one; its id. With `request_id` once however often it is asked."""
        schedule = await self._find(id, workflow)
        run = self._noria.create_run(schedule.workflow, f"{id}-now-{ids.event_run_id(id, request_id or ids.run_id())[-12:]}")
        run.request_id = request_id
        return await run.start_async(stored.definition(schedule.body).input)

    async def _set(self, id: str, workflow: Workflow | str | None, *, paused: bool) -> None:
        while True:
            schedule = await self._find(id, workflow)
            definition = stored.definition(schedule.body)
            if definition.paused == paused:
                break
            try:
                await put(self._noria, schedule.workflow, id, dataclasses.replace(definition, paused=paused), schedule.revision)
            except Refused:
                continue
            break

    async def _find(self, id: str, workflow: Workflow | str | None) -> StoredSchedule:
        await self._noria.broker.provision()
        every = await self._noria.broker.schedules.every(id_of(workflow))
        found = [schedule for schedule in every if schedule.id == id]
        if not found:
            raise InvalidInput(f"there is no schedule {id!r}; there are {choices(sorted(s.id for s in every))}")
        if len(found) > 1:
            raise InvalidInput(f"several workflows have a schedule {id!r}: name one of {choices(sorted(s.workflow for s in found))}")
        return found[0]

    async def _info(self, schedule: StoredSchedule) -> ScheduleInfo:
        definition = stored.definition(schedule.body)
        found = await self._noria.broker.schedules.past(schedule.workflow, schedule.id)
        past = stored.past(found.body) if found is not None else stored.Past()
        following = None if definition.paused else as_cron(definition).after(aware(now()))
        last_at = None if past.last_at is None else aware(past.last_at)
        return ScheduleInfo(
            schedule.id, schedule.workflow, definition.cron, definition.timezone, definition.input, definition.overlap, definition.paused,
            following, past.last_run, last_at, past.skipped,
        )  # fmt: skip

"""When a schedule fires: cron expressions in a time zone. Frozen values; no clock is read here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from typing import Any, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from noria.errors import DefinitionError
from noria.ids import NAME
from noria.limits import MAX_SCHEDULE_ID

Overlap = Literal["skip", "allow", "cancel"]
OVERLAPS = ("skip", "allow", "cancel")
SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)
SAMPLES = 10


@dataclass(frozen=True, slots=True)
class Cron:
    """A schedule: six fields (seconds first) or five, in an IANA time zone. A restricted day of month and a restricted
    day of week combine with OR; 7 is Sunday too. `overlap`: what happens when the run of an earlier tick is not over:
    "skip" this tick, "allow" both, or "cancel" the earlier one. Raises DefinitionError that says what is wrong."""

    expression: str
    timezone: str = "UTC"
    input: Any = None
    id: str | None = None
    overlap: Overlap = "skip"

    def __post_init__(self) -> None:
        expression: Any = self.expression
        if not isinstance(expression, str):
            raise DefinitionError(f"cron {expression!r}: give its five fields as one text, or six with seconds first")
        self._sim(SOME_DAY)
        self._zone()
        if self.overlap not in OVERLAPS:
            raise DefinitionError(f"cron {self.expression!r}: overlap is {self.overlap!r}; it may be {', '.join(map(repr, OVERLAPS))}")
        if self.id is not None and (not NAME.fullmatch(self.id) or len(self.id) > MAX_SCHEDULE_ID):
            raise DefinitionError(f"schedule id {self.id!r}: use up to {MAX_SCHEDULE_ID} letters, digits, '-' and '_'")

    @property
    def pattern(self) -> str:
        """Six fields of plain numbers, as the server takes them."""
        sim = self._sim(SOME_DAY)
        weekdays = {day % 7 for day in _plain(sim.weekdays)}
        fields: list[Iterable[int]] = [sim.seconds, sim.minutes, sim.hours, sim.days, sim.months, weekdays]
        # a star must stay one: it says that the two day fields combine with AND
        return " ".join(
            text if text.startswith("*") else ",".join(map(str, sorted(values))) for text, values in zip(self._fields(), fields, strict=True)
        )

    def after(self, at: datetime) -> datetime:
        """The first time after `at`, in the schedule's zone."""
        return next(self._sim(at.astimezone(self._zone())))

    def before(self, at: datetime) -> datetime:
        """The last time before `at`, in the schedule's zone."""
        return next(self._sim(at.astimezone(self._zone()), reverse=True))

    def shortest_gap(self, at: datetime) -> float:
        """Seconds between two of the next times."""
        times = [at := self.after(at) for _ in range(SAMPLES)]
        return min((b - a).total_seconds() for a, b in pairwise(times))

    def _fields(self) -> list[str]:
        fields = self.expression.split()
        if len(fields) not in (5, 6):
            raise DefinitionError(f"cron {self.expression!r}: it has {len(fields)} fields; give five, or six with seconds first")
        return fields if len(fields) == 6 else ["0", *fields]

    def _sim(self, at: datetime, reverse: bool = False) -> CronSim:
        fields = self._fields()
        try:
            sim = CronSim(" ".join(fields), at, reverse)
        except CronSimError as error:
            names = "second, minute, hour, day-of-month, month, day-of-week"
            raise DefinitionError(f"cron {self.expression!r}: {str(error).lower()} (the fields: {names})") from error
        if any(day < 0 for day in sim.days) or len(_plain(sim.weekdays)) != len(sim.weekdays):
            raise DefinitionError(f"cron {self.expression!r}: 'L', 'W' and '#' are not supported: give numbers, lists, ranges and steps")
        return sim

    def _zone(self) -> tzinfo:
        try:
            return ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError, TypeError) as error:
            raise DefinitionError(f"cron {self.expression!r}: no time zone {self.timezone!r}; give an IANA name such as 'Europe/Berlin'") from error


def _plain(days: Iterable[int | tuple[int, int]]) -> list[int]:
    return [day for day in days if isinstance(day, int)]


def named(workflow: str, schedules: Sequence[Any]) -> dict[str, Cron]:
    """The schedules of a workflow by id: the first without one is named like the workflow, others by their number.
    Raises DefinitionError for what is no Cron and for an id given twice."""
    found: dict[str, Cron] = {}
    for number, schedule in enumerate(schedules, 1):
        if not isinstance(schedule, Cron):
            raise DefinitionError(f"workflow {workflow!r}: schedule takes Cron(...) or a list of them, not {schedule!r}")
        id = schedule.id or (workflow if number == 1 else f"{workflow}-{number}")
        if id in found:
            raise DefinitionError(f"workflow {workflow!r}: two schedules have the id {id!r}: give another id=")
        found[id] = schedule
    return found

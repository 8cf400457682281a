"""Cron expressions: grammar, zones, times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from noria import Cron, DefinitionError, Workflow, step


@step
async def tick(x: int = 0) -> int:
    return x


@pytest.mark.row("SC-08")
@pytest.mark.parametrize(
    ("expression", "pattern"),
    [
        ("* * * * *", "0 * * * * *"),
        ("5 * * * *", "0 5 * * * *"),
        ("1,3,9 0 * * *", "0 1,3,9 0 * * *"),
        ("10-13 * * * *", "0 10,11,12,13 * * * *"),
        ("*/20 */6 * * *", "0 */20 */6 * * *"),
        ("10-20/5 * * * *", "0 10,15,20 * * * *"),
        ("50/5 * * * *", "0 50,55 * * * *"),
        ("0 0 * * 7", "0 0 0 * * 0"),
        ("0 0 * * 5-7", "0 0 0 * * 0,5,6"),
        ("0 0 * JAN,dec mon-fri", "0 0 0 * 1,12 1,2,3,4,5"),
        ("0 0 9 * * 1-5", "0 0 9 * * 1,2,3,4,5"),
        ("*/10 * * * * *", "*/10 * * * * *"),
    ],
)
def test_fields_give_exactly_their_members(expression: str, pattern: str) -> None:
    assert Cron(expression).pattern == pattern


@pytest.mark.row("SC-08")
@pytest.mark.parametrize(("field", "count"), [(1, 60), (2, 24), (3, 31), (4, 12), (5, 7)])
def test_a_wildcard_is_all_values(field: int, count: int) -> None:
    values = {"1": "0-59", "2": "0-23", "3": "1-31", "4": "1-12", "5": "0-7"}[str(field)]
    fields = ["0", "0", "0", "1", "1", "1"]
    fields[field] = values
    assert len(Cron(" ".join(fields)).pattern.split()[field].split(",")) == count


@pytest.mark.row("SC-04", "SC-09")
@pytest.mark.parametrize(
    "expression",
    [
        "", "*", "* * * *", "* * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 * ", "* * * * 8", "-1 * * * *",
        "*/0 * * * *", "*/x * * * *", "5-1 * * * *", "a b c d e", "every day at nine or so", "1,,2 * * * *", "1- * * * *", "@hourly", "* * L * *",
        "* * * * 5L", "* * * * 5#2", "0 0 31 2 *", "1.5 * * * *",
        None, 5, ["0 9 * * *"],
    ],
)  # fmt: skip
def test_what_is_no_cron_is_refused_when_written(expression: Any) -> None:
    with pytest.raises(DefinitionError, match="cron") as caught:
        Cron(expression)
    assert repr(expression) in str(caught.value)


@pytest.mark.row("SC-04")
@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "Local time", "../etc", "+02:00"])
def test_a_bad_zone_is_refused_when_written(zone: str) -> None:
    with pytest.raises(DefinitionError, match="time zone"):
        Cron("0 9 * * *", timezone=zone)


@pytest.mark.row("SC-04")
def test_one_bad_entry_in_a_list_and_other_mistakes() -> None:
    with pytest.raises(DefinitionError, match="61"):
        Workflow("w", schedule=[Cron("0 9 * * *"), Cron("61 9 * * *")])
    with pytest.raises(DefinitionError, match="Cron"):
        Workflow("w", schedule="0 9 * * *")
    with pytest.raises(DefinitionError, match="two schedules"):
        Workflow("w", schedule=[Cron("0 9 * * *", id="a"), Cron("0 8 * * *", id="a")])
    with pytest.raises(DefinitionError, match="overlap"):
        Cron("0 9 * * *", overlap="queue")  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="schedule id"):
        Cron("0 9 * * *", id="a.b")


@pytest.mark.row("SC-01", "SC-02")
def test_a_workflow_knows_its_schedules() -> None:
    one = Cron("0 9 * * *", timezone="Europe/Berlin", input={"a": 1})
    assert Workflow("w", schedule=one).then(tick).schedules == (one,)
    assert Workflow("w").then(tick).schedules == ()
    both = [Cron("0 9 * * *", id="morning"), Cron("0 21 * * *", id="evening")]
    flow = Workflow("w", schedule=both).then(tick)
    assert list(flow.schedules) == both and list(flow.schedules_by_id) == ["morning", "evening"]
    assert list(Workflow("w", schedule=[one, Cron("0 8 * * *"), both[0]]).schedules_by_id) == ["w", "w-2", "morning"]


@pytest.mark.row("SC-11")
def test_restricted_day_fields_combine_with_or() -> None:
    thursday = datetime(2026, 1, 1, tzinfo=UTC)
    assert Cron("0 0 15 * 1").after(thursday) == datetime(2026, 1, 5, tzinfo=UTC)
    assert Cron("0 0 15 * *").after(thursday) == datetime(2026, 1, 15, tzinfo=UTC)
    assert Cron("0 0 * * 1").after(thursday) == datetime(2026, 1, 5, tzinfo=UTC)


def test_times_are_in_the_zone_and_before_is_the_inverse_of_after() -> None:
    cron = Cron("0 0 9 * * *", timezone="Europe/Berlin")
    summer = cron.after(datetime(2026, 7, 1, 12, tzinfo=UTC))
    assert summer.isoformat() == "2026-07-02T09:00:00+02:00"
    assert cron.after(datetime(2026, 12, 1, 12, tzinfo=UTC)).isoformat() == "2026-12-02T09:00:00+01:00"
    for each in (cron, Cron("* * * * * *"), Cron("0,59 * * * * *"), Cron("30 2 29 2 *"), Cron("*/7 * * * 1-5", timezone="America/New_York")):
        first = each.after(datetime(2026, 3, 8, 1, 30, 15, tzinfo=UTC))
        assert each.before(each.after(first)) == first


def test_the_shortest_gap() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert [Cron(e).shortest_gap(at) for e in ("* * * * * *", "0,59 * * * * *", "*/5 * * * *", "0 9,10 * * *")] == [1, 1, 300, 3600]

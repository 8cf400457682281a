"""Area schedules of reliability.yaml: ticks of the real server. Grammar and zones are in tests/unit/test_cron.py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from noria import Context, Cron, DefinitionError, InvalidInput, Noria, Workflow, step
from noria.clock import aware, now
from noria.contract import schedules
from noria.contract.schedules import Past, ScheduleInfo

EVERY_SECOND = "* * * * * *"
NEVER_SOON = "0 0 0 29 2 *"


def ticking(id: str, schedule: Any, work: Callable[[Any], Awaitable[Any]] | None = None, **options: Any) -> Workflow:
    """A workflow of one step, which gives its input or does `work`."""

    async def tick(value: Any, ctx: Context) -> Any:
        return value if work is None else await work(ctx)

    return Workflow(id, schedule=schedule, **options).then(step(tick, id="tick")).commit()


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 15.0) -> Any:
    """What the condition gives once it is true."""
    async with asyncio.timeout(seconds):
        while not (found := await condition()):
            await asyncio.sleep(0.05)
    return found


async def only(noria: Noria) -> ScheduleInfo:
    (found,) = await noria.schedules.list()
    return found


async def ended(noria: Noria, workflow: str, count: int) -> list[str]:
    """The ids of the workflow's runs, newest first, once so many have ended."""

    async def enough() -> list[str]:
        runs = (await noria.runs.list(workflow, status="success")).runs
        return [r.run_id for r in runs] if len(runs) >= count else []

    return await until(enough)


@pytest.mark.row("SC-01", "SC-02")
async def test_schedules_are_stored_and_listed(noria: Noria) -> None:
    both = [Cron("0 9 * * 1-5", timezone="Europe/Berlin", input={"n": 1}, id="b"), Cron(NEVER_SOON, id="a", overlap="allow")]
    async with noria.worker(ticking("report", both), ticking("plain", None)):
        first, second = await noria.schedules.list()
        assert (second.id, second.workflow_id, second.cron) == ("b", "report", "0 9 * * 1-5")
        assert (second.timezone, second.input) == ("Europe/Berlin", {"n": 1})
        assert (first.id, first.overlap, second.overlap, first.paused, first.last_run) == ("a", "allow", "skip", False, None)
        assert second.next is not None and (second.next.hour, second.next.second) == (9, 0)
        assert await noria.schedules.list("plain") == []


@pytest.mark.row("SC-07")
async def test_each_tick_is_one_run_however_many_workers(noria: Noria, server_url: str) -> None:
    flow = ticking("each", Cron(EVERY_SECOND, input={"x": 1}, id="sec", overlap="allow"))
    async with Noria.connect(server_url, namespace=noria.namespace) as other, noria.worker(flow), other.worker(flow):
        runs = await ended(noria, "each", 3)
        record = await noria.runs.get(runs[0], "each")
        info = await only(noria)
    assert record is not None and record.input == record.result == {"x": 1}
    assert len(set(runs)) == len(runs) and all(run.startswith("sec-20") and run.endswith("Z") for run in runs)
    assert info.last_run is not None and info.last_run >= runs[0] and info.last_at is not None and info.next is not None


async def test_missed_ticks_are_not_made_up_for(noria: Noria) -> None:
    flow = ticking("missed", Cron(EVERY_SECOND))
    async with noria.worker(flow):
        before = len(await ended(noria, "missed", 1))
    left = now()
    await asyncio.sleep(4)
    back = now()
    async with noria.worker(flow):
        runs = await ended(noria, "missed", before + 2)
    planned = [datetime.strptime(run, "missed-%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp() for run in runs]
    assert not [at for at in planned if left < at < back - 2], "a tick waits a second for a worker"


@pytest.mark.row("SC-13")
async def test_a_pause_outlives_restarts_and_redeploys_and_is_not_made_up_for(noria: Noria) -> None:
    async with noria.worker(ticking("p", Cron(EVERY_SECOND, id="s"))):
        await ended(noria, "p", 1)
        await noria.schedules.pause("s")
        await noria.schedules.pause("s", "p")
        before = (await noria.runs.list("p")).total
    async with noria.worker(ticking("p", Cron("*/1 * * * * *", id="s", input=5))):
        info = await only(noria)
        assert info.paused and info.next is None and (info.cron, info.input) == ("*/1 * * * * *", 5)
        await asyncio.sleep(2.2)
        assert (await noria.runs.list("p")).total <= before + 1  # one may have been on its way
        before = (await noria.runs.list("p")).total
        await noria.schedules.resume("s")
        await noria.schedules.resume("s")
        assert not (await only(noria)).paused
        await ended(noria, "p", before + 1)
        assert (await noria.runs.list("p")).total <= before + 2


@pytest.mark.row("SC-14")
async def test_a_redeploy_changes_only_what_changed(noria: Noria) -> None:
    both = [Cron(NEVER_SOON, id="kept"), Cron(NEVER_SOON, id="gone")]
    async with noria.worker(ticking("d", both)):
        kept = await noria.broker.schedules.get("d", "kept")
    async with noria.worker(ticking("d", both)):
        again = await noria.broker.schedules.get("d", "kept")
        assert again is not None and kept is not None and again.revision == kept.revision
        await noria.broker.schedules.put_past("d", "kept", b'{"v":1,"last_run":"kept-x","last_at":1.0}', 0)
        before = await noria.schedules.list()
    async with noria.worker(ticking("d", [Cron(NEVER_SOON, id="kept", input={"new": True}), Cron(EVERY_SECOND, id="added")])):
        added, info = await noria.schedules.list()
        assert (info.id, info.input, info.next, info.last_run) == ("kept", {"new": True}, before[1].next, "kept-x")
        assert added.id == "added"
        await ended(noria, "d", 1)
    async with noria.worker(ticking("d", None)):
        assert await noria.schedules.list() == []


@pytest.mark.row("SC-05")
@pytest.mark.not_applicable(15, "one-off and bounded schedules are not carried over")
async def test_one_off_schedules() -> None: ...


@pytest.mark.row("SC-15")
async def test_a_tick_is_left_to_workers_of_its_own_definition(noria: Noria, server_url: str) -> None:
    """The schedule was declared by version 2; a worker of version 1 leaves its ticks to one of version 2."""
    new = ticking("roll", Cron(EVERY_SECOND, id="s"), version="2")
    async with noria.worker(new):
        pass
    definition = await noria.broker.schedules.get("roll", "s")
    assert definition is not None
    async with Noria.connect(server_url, namespace=noria.namespace) as old, old.worker(ticking("roll", Cron(EVERY_SECOND, id="s"))):
        stale = await noria.broker.schedules.get("roll", "s")
        assert stale is not None
        await noria.broker.schedules.put("roll", "s", definition.body, stale.revision, EVERY_SECOND, "UTC", 10)
        before = (await noria.runs.list("roll")).total

        async def given_up() -> Any:
            return await noria.dead.list(kind="schedule", workflow="roll")

        (letter, *_) = await until(given_up, 25)
        assert "definition" in letter.reason and "5 ticks" in letter.reason
        assert (await noria.runs.list("roll")).total <= before + 1


@pytest.mark.row("SC-16")
async def test_a_schedule_that_nobody_can_serve_is_removed(noria: Noria) -> None:
    async with noria.worker(ticking("lost", Cron(EVERY_SECOND, id="s"))):
        pass
    async with noria.worker(ticking("other", None)):
        assert [s.id for s in await noria.schedules.list()] == ["s"]

        async def gone() -> bool:
            return not await noria.schedules.list()

        await until(gone, 20)
        (letter,) = await noria.dead.list(kind="schedule", workflow="lost")
        assert "no worker hosts" in letter.reason
        assert (await noria.runs.list("lost", status="pending")).total <= 1


@pytest.mark.parametrize(("overlap", "statuses"), [("skip", {"running"}), ("cancel", {"running", "canceled"}), ("allow", {"running"})])
async def test_overlap(noria: Noria, overlap: Any, statuses: set[str]) -> None:
    async def long(ctx: Context) -> None:
        await asyncio.sleep(30)

    async with noria.worker(ticking("long", Cron(EVERY_SECOND, id="s", overlap=overlap), long), grace=0):

        async def several() -> Any:
            runs = (await noria.runs.list("long")).runs
            skipped = (await only(noria)).skipped
            return runs if len(runs) >= (1 if overlap == "skip" else 3) and (overlap != "skip" or skipped >= 2) else None

        runs = await until(several)
        open_ones = [r for r in runs if r.status in ("running", "pending")]
        assert len(open_ones) == 1 if overlap == "skip" else len(open_ones) >= 3 if overlap == "allow" else len(open_ones) <= 2, runs
        assert {r.status for r in runs} - {"pending"} <= statuses
        await noria.schedules.pause("s")


async def test_run_now_even_when_paused(noria: Noria) -> None:
    async with noria.worker(ticking("now", Cron(NEVER_SOON, input={"a": 1})), ticking("twin", Cron(NEVER_SOON, id="now"))):
        await noria.schedules.pause("now", "now")
        run_id = await noria.schedules.run("now", "now")
        assert run_id.startswith("now-now-")
        result = await noria.create_run("now", run_id).result(timeout=10)
        assert (result.status, result.result) == ("success", {"a": 1})
        with pytest.raises(InvalidInput, match="several workflows.*'now', 'twin'"):
            await noria.schedules.run("now")
        with pytest.raises(InvalidInput, match="no schedule 'nope'.*'now'"):
            await noria.schedules.pause("nope")


async def test_an_input_that_does_not_fit_is_refused_when_the_worker_registers(noria: Noria) -> None:
    with pytest.raises(DefinitionError, match="schedule 'typed'"):
        async with noria.worker(ticking("typed", Cron(NEVER_SOON, input="x"), input=int)):
            pass


async def test_a_zone_decides_when_the_server_ticks(noria: Noria) -> None:
    """The same wall time in a zone without summer time, seconds from now."""
    await noria.broker.provision()
    at = aware(now() + 2.5).astimezone(ZoneInfo("Asia/Kolkata"))
    async with noria.worker(ticking("zone", Cron(f"{at.second} {at.minute} {at.hour} * * *", timezone="Asia/Kolkata", id="z"))):
        (run,) = await ended(noria, "zone", 1)
    assert run == f"z-{at - timedelta(hours=5, minutes=30):%Y%m%dT%H%M%SZ}"


def test_the_past_is_forward_compatible() -> None:
    assert schedules.past(b'{"v":1,"last_run":"a","added_later":1}') == Past("a")

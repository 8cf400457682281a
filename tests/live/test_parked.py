"""Runs that wait for a resume: for long, in great numbers, and with whatever happens to their hosts."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from tests.live.test_crash import lines, until

from noria import Context, Noria, Workflow, step
from noria.actor.activation import Activation


@step(id="asks")
async def asks(data: Any, ctx: Context) -> Any:
    if ctx.resume_data is None:
        ctx.suspend({"asks": data})
    return [data, ctx.resume_data]


@step(id="asks-too")
def asks_too(data: Any, ctx: Context) -> Any:
    if ctx.resume_data is None:
        ctx.suspend()
    return ctx.resume_data


async def forget(noria: Noria, workflow: str) -> None:
    """Let the log age out: commands and facts of all runs vanish, records stay."""
    for kind in ("in", "run"):
        wish = {"filter": f"{noria.namespace}.{kind}.{workflow}.>"}
        answer = await noria.broker.connection.api(f"STREAM.PURGE.{noria.broker.subjects.runs}", wish)  # type: ignore[attr-defined]
        assert answer["purged"] > 0


async def test_a_run_whose_log_aged_out_resumes_like_any_other(noria: Noria) -> None:
    """Twice: a nested step and a parallel member wait longer than commands and facts are kept; values are large."""
    large = "x" * 300_000
    flow = Workflow("aged").parallel(Workflow("inner").then(asks), asks_too).then(asks.clone(id="last")).commit()
    async with noria.worker(flow, lease=5):
        run = noria.create_run(flow)
        await run.start(large)
        await forget(noria, "aged")
        result = await run.resume(large, step="asks-too")
        assert [s.path for s in result.suspended] == [("inner", "asks")] and result.suspended[0].payload == {"asks": large}
        await forget(noria, "aged")
        result = await run.resume(1)
        assert [s.path for s in result.suspended] == [("last",)] and result.steps["inner"].output == [large, 1]
        await forget(noria, "aged")
        equal = await asyncio.gather(run.resume(2), run.resume(2))
    assert [r.result for r in equal] == [[{"inner": [large, 1], "asks-too": large}, 2]] * 2


async def test_a_run_leaves_nothing_to_the_collector(noria: Noria) -> None:
    """Workers freeze what is loaded, and count on it: what a run needed goes with it."""
    flow = Workflow("parked").then(Workflow("inner").then(asks)).foreach(asks_too, concurrency=2).commit()
    async with noria.worker(flow):
        gc.collect()
        gc.disable()
        try:
            runs = [noria.create_run(flow) for _ in range(20)]
            await asyncio.gather(*(run.start(1) for run in runs))
            await asyncio.gather(*(run.resume(2) for run in runs))
            async with asyncio.timeout(10):
                while left := [o.key for o in gc.get_objects() if isinstance(o, Activation)]:
                    await asyncio.sleep(0.1)
            assert not left
        finally:
            gc.enable()


async def test_parked_runs_hold_nothing_and_all_go_on(noria: Noria) -> None:
    flow = Workflow("parked").then(Workflow("inner").then(asks)).commit()
    worker = noria.worker(flow, concurrency=10, lease=2)
    async with worker:
        runs = [noria.create_run(flow) for _ in range(100)]
        await asyncio.gather(*(run.start(n) for n, run in enumerate(runs)))
        await until(lambda: not worker.host._activations and not worker.host._slots, 2)  # pyright: ignore[reportPrivateUsage]
        assert (await noria.runs.list(flow, status="suspended")).total == 100
        results = await asyncio.gather(*(run.resume(-n) for n, run in enumerate(runs, 1)))
    assert [r.result for r in results] == [[n, -n - 1] for n in range(100)]


HOST = textwrap.dedent(
    """
    import asyncio, sys
    from noria import Context, Noria, Workflow, step
    url, namespace, journal, pause = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
    def asks(id, seconds):
        async def work(x, ctx: Context):
            with open(journal, "a") as f:
                f.write(f"{id} {ctx.resume_data} {ctx.recovered}\\n")
            if ctx.resume_data is None:
                ctx.suspend()
            await asyncio.sleep(seconds)
            return ctx.resume_data
        return step(work, id=id)
    flow = Workflow("killed").parallel(Workflow("quick").then(asks("a", 0)), asks("slow", pause), asks("other", 0))
    async def main():
        async with Noria.connect(url, namespace=namespace) as noria, noria.worker(flow, lease=1.5):
            print("ready", flush=True)
            await asyncio.sleep(60)
    asyncio.run(main())
    """
)


def spawn(noria: Noria, journal: Path, pause: float) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOST, noria.url, noria.namespace, str(journal), str(pause)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    return process


async def test_what_was_recorded_of_a_resumed_member_outlives_its_host(noria: Noria, tmp_path: Path) -> None:
    """Two members are resumed, one is done when the host is killed: only the other one runs again, with its own data."""
    journal = tmp_path / "journal"
    first = spawn(noria, journal, 60)
    second = None
    try:
        run = noria.create_run("killed")
        assert len((await run.start(0)).suspended) == 3
        waiting = [asyncio.create_task(run.resume("to slow", step="slow"))]
        await until(lambda: ["slow", "to", "slow", "False"] in lines(journal))
        waiting.append(asyncio.create_task(run.resume("to a", step="quick")))
        while (record := await run.get()) is None or record.steps["quick"].status != "success":
            await asyncio.sleep(0.02)
        first.kill()
        second = spawn(noria, journal, 0)
        results = await asyncio.wait_for(asyncio.gather(*waiting), 20)
        assert all([s.path for s in r.suspended] == [("other",)] for r in results)
        assert (await run.resume("to other")).result == {"quick": "to a", "slow": "to slow", "other": "to other"}
        calls = [" ".join(line) for line in lines(journal)]
        assert sorted(calls) == sorted([
            "a None False", "slow None False", "other None False", "slow to slow False", "a to a False", "slow to slow True", "other to other False",
        ])  # fmt: skip
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()

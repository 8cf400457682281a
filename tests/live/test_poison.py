"""A run that takes its worker down each time: it alone ends failed, with a dead letter that can start it anew."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path

from noria import Noria, Workflow, step

INNOCENTS = 100
WORKER = textwrap.dedent(
    """
    import asyncio, os, signal, sys
    from noria import Context, Noria, Workflow, step
    url, namespace, cured = sys.argv[1:]
    @step
    async def kills(x: int) -> int:
        await asyncio.sleep(0.03)
        if not os.path.exists(cured):
            os.kill(os.getpid(), signal.SIGKILL)
        return x + 1
    @step
    async def first(x: int) -> int:
        await asyncio.sleep(0.06)
        return x + 1
    async def main():
        async with Noria.connect(url, namespace=namespace) as noria:
            await noria.serve(Workflow("culprit").then(kills), Workflow("innocent").then(first).then(first.clone(id="second")), lease=1)
    asyncio.run(main())
    """
)


@step
async def nothing(x: int) -> int:
    return x


async def supervise(url: str, namespace: str, cured: Path, deaths: list[int]) -> None:
    """Start the worker again each time it dies."""
    while True:
        process = subprocess.Popen([sys.executable, "-c", WORKER, url, namespace, str(cured)])
        try:
            while process.poll() is None:
                await asyncio.sleep(0.02)
            deaths.append(process.returncode)
        finally:
            process.kill()
            process.wait()


async def test_only_the_culprit_is_given_up(noria: Noria, server_url: str, tmp_path: Path) -> None:
    deaths: list[int] = []
    culprit = Workflow("culprit").then(nothing.clone(id="kills")).commit()
    innocent = Workflow("innocent").then(nothing.clone(id="first")).then(nothing.clone(id="second")).commit()
    await noria.broker.provision()
    bad = noria.create_run(culprit, resource_id="shop")
    good = [noria.create_run(innocent) for _ in range(INNOCENTS)]
    await asyncio.gather(*(run.start_async(n) for n, run in enumerate(good)), bad.start_async(7))
    supervisor = asyncio.create_task(supervise(server_url, noria.namespace, tmp_path / "cured", deaths))
    try:
        results = await asyncio.gather(*(run.result(timeout=55) for run in good))
        failed = await bad.result(timeout=40)
        died = len(deaths)
        (letter,) = await noria.dead.list(kind="poison")
        (tmp_path / "cured").touch()
        again = await noria.dead.replay(letter.sequence)
        cured = await noria.create_run(culprit, again).result(timeout=20)
        assert (await noria.create_run(culprit, again).get()).resource_id == "shop"
    finally:
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)
    assert [(r.status, r.result) for r in results] == [("success", n + 2) for n in range(INNOCENTS)]
    assert failed.status == "failed" and failed.error is not None and failed.error.type == "Poisoned"
    assert died == 6 == deaths.count(-9), "once, and five times after a take-over"
    assert letter.workflow == "culprit" and letter.headers["noria-run"] == bad.id and "without progress" in letter.reason
    assert (cured.status, cured.result) == ("success", 8) and again != bad.id

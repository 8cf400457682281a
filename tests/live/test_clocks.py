"""A worker's clock that differs from the server's: timers go by the server's, and the operator is told."""

from __future__ import annotations

import asyncio
import time

import pytest

from noria import Context, Noria, Retry, Workflow, clock, step


@step(retry=Retry(attempts=1, delay=3))
async def flaky(x: int, ctx: Context) -> int:
    if ctx.attempt == 0:
        raise ValueError("once")
    return x


@pytest.mark.parametrize("ahead", [600, -600])
async def test_a_sleep_takes_its_time_by_whatever_clock(noria: Noria, ahead: int, caplog: pytest.LogCaptureFixture) -> None:
    flows = Workflow("sleeps").sleep(3).commit(), Workflow("retries").then(flaky).commit()
    before = clock.use(clock.Source(lambda: time.time() + ahead, time.monotonic))
    try:
        async with noria.worker(*flows):
            began = time.monotonic()
            results = await asyncio.wait_for(asyncio.gather(*(noria.run(flow, 1) for flow in flows)), 60)
            assert [r.status for r in results] == ["success", "success"]
            assert time.monotonic() - began > 2.5
            said = f"600 s {'ahead of' if ahead > 0 else 'behind'} that of"
            assert said in caplog.text and "600 s" in next(detail for name, _, detail in await noria.doctor() if name == "clock")
    finally:
        clock.use(before)

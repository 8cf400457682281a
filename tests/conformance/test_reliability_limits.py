"""Area limits of reliability.yaml: what grows, and what does not."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from typing import Any

import pytest

from noria import Context, Noria, Workflow, step
from noria.actor.activation import Activation
from noria.machine.state import Tree
from noria.ports import ActorKey
from tests.conformance.conftest import Run
from tests.conformance.doubles import fails, gives, waits


async def written(noria: Noria, shape: str, rounds: int) -> tuple[int, int, int]:
    """A run of so many tool steps of 2 kB each, recorded while it runs: the bytes of its log and records, its largest record
    and the copies of one result in that."""
    records: list[bytes] = []

    async def tool(x: Any, ctx: Context) -> dict[str, Any]:
        n = x["n"] + 1
        [activation] = [a for a in worker.host._activations.values() if a.key.run == ctx.run_id]
        await activation._save_quietly()
        stored = await noria.broker.records.get(activation.key.tree)
        assert stored is not None
        records.append(stored.body)
        return {"n": n, "text": f"result-{n:02} " + "x" * 2000}

    flow = Workflow(f"{shape}-{rounds}")
    if shape == "loop":
        flow = flow.do_while(step(tool, id="tool"), lambda out: out["n"] < rounds)
    else:
        for n in range(rounds):
            flow = flow.then(step(tool, id=f"tool-{n}"))
    worker = noria.worker(flow.commit(), lease=5)
    async with worker:
        result = await noria.run(flow, {"n": 0}, timeout=20)
        assert result.status == "success" and result.result["n"] == rounds
        log = await noria.broker.log.read_tree(ActorKey(flow.id, result.run_id))
    largest = max(records, key=len)
    return sum(len(entry.body) for entry in log) + sum(map(len, records)), len(largest), largest.count(b"result-01 ")


@pytest.mark.row("LM-01")
async def test_a_loop_twice_as_long_writes_twice_as_much(noria: Noria) -> None:
    """Even with a record before each round, which an engine that keeps no log would need."""
    (bytes4, record4, copies4), (bytes8, record8, copies8) = await written(noria, "loop", 4), await written(noria, "loop", 8)
    assert bytes8 < 2.6 * bytes4 and record8 < 1.65 * record4 and copies8 <= copies4 <= 14


async def test_the_log_of_a_sequence_grows_with_its_steps_alone(noria: Noria) -> None:
    sizes: list[int] = []
    for n in (4, 8):
        flow = Workflow(f"chain-{n}")
        for k in range(n):
            flow = flow.then(gives(f"s{k}", f"result-{k:02} " + "x" * 2000))
        async with noria.worker(flow.commit(), lease=5):
            log = await noria.broker.log.read(ActorKey(flow.id, (await noria.run(flow, timeout=20)).run_id))
        assert len(log) == n and all(sum(entry.body.count(f"result-{k:02}".encode()) for entry in log) == 1 for k in range(n))
        sizes.append(sum(len(entry.body) for entry in log))
    assert sizes[1] < 2.1 * sizes[0]


def alive(kind: type) -> int:
    gc.collect()
    return sum(isinstance(thing, kind) for thing in gc.get_objects())


@pytest.mark.row("LM-02", "LM-03")
async def test_a_worker_keeps_nothing_of_runs_that_rest(noria: Noria, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever they came to: what is counted of failures and take-overs is in the log. Suspended ones hold nothing either."""
    caplog.set_level(logging.CRITICAL, "noria")  # pytest would keep the logged errors, and their frames with them
    ends = Workflow("ends").then(gives("a", 1)).commit()
    breaks = Workflow("breaks").then(fails("a", "no")).commit()
    parks = Workflow("parks").then(waits("a", 1)).commit()
    before, known = alive(Tree), alive(Activation)
    worker = noria.worker(ends, breaks, parks, lease=5)
    async with worker:
        results = await asyncio.gather(*(noria.run(flow, 1, timeout=30) for flow in (ends, breaks, parks) for _ in range(40)))
        assert Counter(r.status for r in results) == {"success": 40, "failed": 40, "suspended": 40}
        await asyncio.gather(*(noria.create_run(parks, r.run_id).cancel() for r in results[-20:]))
        bogus = [noria.broker.commands.send(ActorKey("ends", f"bogus-{n}"), b"rubbish") for n in range(40)]
        await asyncio.gather(*bogus)
        host = worker.host
        async with asyncio.timeout(10):
            while host._activations or host._slots or host._incoming or (await noria.broker.commands.unacknowledged("ends")).pending:
                await asyncio.sleep(0.02)
        assert not noria.waiting._waiters
        del results, bogus
        async with asyncio.timeout(10):
            while alive(Activation) > known or alive(Tree) > before:
                await asyncio.sleep(0.1)


@pytest.mark.row("LM-04")
@pytest.mark.parametrize("until", [False, True])
async def test_a_loop_is_bounded_by_its_own_condition(run: Run, calls: Counter[str], until: bool) -> None:
    rounds: list[int] = []

    def limited(out: Any, ctx: Context) -> bool:
        rounds.append(ctx.iteration)
        if ctx.iteration >= 5:
            raise RuntimeError("five rounds are enough")
        return not until

    body = gives("body", lambda x: x + 1, calls)
    flow = Workflow("bounded").do_until(body, limited) if until else Workflow("bounded").do_while(body, limited)
    result = await run(flow.then(gives("next", 1, calls)), 0)
    assert result.status == "failed" and result.error is not None and "five rounds are enough" in result.error.message
    assert rounds == [1, 2, 3, 4, 5] and calls == {"body": 5} and result.steps["body"].iterations == 5


@pytest.mark.row("LM-05")
async def test_a_condition_that_raises_fails_the_run(run: Run, calls: Counter[str]) -> None:
    """Difference 2; when none is true the block succeeds with nothing."""

    def broken(_: Any) -> bool:
        raise LookupError("no such customer")

    def arms(first: Any, second: Any) -> Workflow:
        return Workflow("arms").branch((first, gives("one", 1, calls)), (second, gives("two", 2, calls)))

    result = await run(arms(broken, lambda _: True), 0)
    assert result.status == "failed" and result.error is not None and not calls
    assert "no such customer" in result.error.message and "'branch-0'" in result.error.message
    assert (await run(arms(lambda _: False, lambda _: None).clone(id="none"), 0)).result == {}

"""Rubbish on every subject that a worker reads: it never dies, the reason is kept, other runs are unaffected."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import nats
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from noria import Context, Noria, Workflow, step
from noria.actor.load import PATH
from noria.contract import commands, control, envelopes
from noria.contract.envelopes import Envelope
from noria.contract.facts import FactMessage, Rested
from noria.errors import InvalidInput, NewerFormat
from noria.ids import RUN_ID
from noria.limits import MAX_NESTING
from noria.ports import ActorKey, RunKey
from noria.triggers.cloudevents import parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=6,
)  # fmt: skip
GOOD = [
    commands.encode(commands.Start("c", 1.0, {"x": 1}, state={"a": 1})),
    commands.encode(commands.Resume("c", 1.0, [("", "ask")], 5)),
    commands.encode(commands.TimerFired("c", 1.0, "", "ask", 2.0)),
    Envelope("n", "flow", "r").encode("", FactMessage([Rested("suspended", 1.0)], 1, 1, "h", "i")),
    json.dumps({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"x": 1}}).encode(),
]


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """Random bytes, a cut message, or a good one with one value exchanged."""
    match draw(st.integers(0, 3)):
        case 0:
            return draw(st.binary(max_size=200))
        case 1:
            good = draw(st.sampled_from(GOOD))
            return good[: draw(st.integers(0, len(good) - 1))]
        case 2:
            return json.dumps(draw(JSON)).encode()
        case _:
            data: Any = json.loads(draw(st.sampled_from(GOOD)))
            place = data
            while isinstance(place, dict) and place:
                key = draw(st.sampled_from(sorted(place)))
                if not isinstance(place[key], dict) or draw(st.booleans()):
                    place[key] = draw(JSON)
                    break
                place = place[key]
            return json.dumps(data).encode()


@step
async def ask(x: Any, ctx: Context) -> Any:
    return ctx.resume_data if ctx.resume_data is not None else ctx.suspend({"x": x})


flow = Workflow("flow").then(ask).commit()
HOSTILE_PATHS = ["", "ask", "ask=1", "ask=x", "ask@999999999", "a.b.c", ".".join(["deep"] * 50), "ask=99999999999999", "@@==", "-"]


async def settled(noria: Noria) -> None:
    """Until the worker has judged all that was sent, or stepped back from it."""
    name = f"CONSUMER.INFO.{noria.broker.subjects.runs}.w-flow"
    for _ in range(60):
        info = await noria.broker.connection.api(name)
        if not info["num_ack_pending"] and not info["num_pending"]:
            return
        await asyncio.sleep(0.05)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "noria")


def examples(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """Drawn by hypothesis, the same ones each time."""
    found: list[Any] = []

    @settings(max_examples=count, database=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(strategy)
    def draw(value: Any) -> None:
        found.append(value)

    draw()
    return found


def unreadable(kind: str, path: str, body: bytes) -> bool:
    """Whether nobody can read it, not even a newer release: then it is due that a dead letter says why."""
    if path.count(".") >= MAX_NESTING or not PATH.fullmatch(path):
        return True
    try:
        commands.decode(body) if kind == "command" else envelopes.decode(body)
    except NewerFormat:
        return False
    except Exception:
        return True
    return False


def starts_nothing(workflow: str, headers: dict[str, str], body: bytes) -> bool:
    """The same of a trigger."""
    try:
        event = parse(headers, body)
    except InvalidInput:
        return True
    return workflow != "flow" or not RUN_ID.fullmatch(str(event.get("runid") or "x"))


def newest_only(sent: list[tuple[str, bytes, bool]]) -> list[tuple[str, bytes, bool]]:
    """Of a key's values only the last one is there to be read."""
    return list({victim: (victim, body, due) for victim, body, due in sent}.values())


async def told(noria: Noria, kind: str, due: list[bytes]) -> None:
    """Until each of these bodies lies in the dead stream with a reason."""
    missing = list(due)
    try:
        async with asyncio.timeout(20):
            while missing:
                letters = [letter for letter in await noria.dead.list(limit=10_000) if letter.kind == kind]
                assert all(letter.reason and "\n" not in letter.reason for letter in letters)
                bodies = {letter.body for letter in letters}
                missing = [body for body in due if body not in bodies]
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{len(missing)} of {len(due)} left no {kind} letter: {missing[:5]}") from None


@pytest.mark.parametrize("target", ["resting run", "unknown run", "fact", "record", "trigger", "news"])
async def test_a_worker_outlives_anything(noria: Noria, target: str) -> None:
    subjects, connection = noria.broker.subjects, noria.broker.connection
    bodies = examples(broken(), 60)
    async with noria.worker(flow, lease=1, concurrency=20):
        victims = [noria.create_run(flow, f"victim-{n}") for n in range(6)]
        bystander = noria.create_run(flow, "bystander")
        assert {(await run.start(1)).status for run in [*victims, bystander]} == {"suspended"}
        sent: list[tuple[str, bytes, bool]] = []  # to whom, what, and whether a dead letter is due
        for n, body in enumerate(bodies):
            victim = victims[n % len(victims)]
            path = HOSTILE_PATHS[n % len(HOSTILE_PATHS)]
            match target:
                case "resting run":
                    await connection.append(subjects.of("in", ActorKey("flow", victim.id, path)), body)
                    sent.append((victim.id, body, unreadable("command", path, body)))
                case "unknown run":
                    await connection.append(subjects.of("in", ActorKey("flow", f"unknown-{n}", path)), body)
                    sent.append((f"unknown-{n}", body, unreadable("command", path, body)))
                case "fact":
                    await connection.append(subjects.of("run", ActorKey("flow", victim.id, path)), body)
                    # while a run rests nobody reads its children's chains, unless there is news on its own
                    reads = victim.id in {f"victim-{m % 6}" for m, p in enumerate(HOSTILE_PATHS * 6) if p == ""}
                    sent.append((victim.id, body, reads and unreadable("fact", path, body)))
                case "record":
                    await connection.append(subjects.record(RunKey("flow", victim.id)), body, None, b"Noria-Summary: {\"status\":5\r\n")
                    sent.append((victim.id, body, True))  # none of them is a record
                case "trigger":
                    headers, workflow = {"ce-id": "1", "ce-source": "/s"} if n % 2 else {}, "flow" if n % 3 else "no-such"
                    await noria.broker.triggers.publish(workflow, body, headers)
                    sent.append((workflow, body, starts_nothing(workflow, headers, body)))
                case _:
                    connection.publish(subjects.rest(RunKey("flow", victim.id), "success"), body)
                    connection.publish(subjects.nudge("flow", victim.id), body)
                    connection.publish(subjects.of("live", ActorKey("flow", victim.id, path)), body)
        for run in victims:  # a command that somebody must judge
            await noria.broker.commands.send(ActorKey("flow", run.id), commands.encode(commands.Restart("c", 1.0)))
        await settled(noria)
        assert (await asyncio.wait_for(bystander.resume("fine"), 10)).result == "fine", "others are unaffected"
        assert (await asyncio.wait_for(noria.run(flow, 2, run_id="later"), 10)).status == "suspended"
        assert (await noria.runs.list(flow)).total >= 2
        kind = {"resting run": "command", "unknown run": "command", "news": "none"}.get(target, target)
        due = [body for _, body, is_due in (newest_only(sent) if target == "record" else sent) if is_due]
        assert len(due) > (5 if target == "record" else 15) or target == "news", "most of it is rubbish"
        await told(noria, kind, due)
        if target == "news":
            assert [(await asyncio.wait_for(run.resume("fine"), 10)).result for run in victims] == ["fine"] * 6


NAMES: list[Any] = [
    "a 1\r\nx\r\nPUB smuggled 1\r\nx\r\nPUB b", "a\nPUB smuggled 0\n\n", "*", ">", "", " ", "a.b", "\x00", "\u00e9", "x" * 5000, "$JS.>", 5, [], {},
]  # fmt: skip


async def test_the_control_api_answers_anything_and_writes_no_line_of_a_callers(
    noria: Noria, server_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A name with line ends would be commands to the server in the worker's own connection, one of 5000 characters cut it."""
    caplog.set_level(logging.WARNING, "noria")
    client = await nats.connect(server_url)
    smuggled: list[Any] = []
    disconnected: list[int] = []

    async def caught(msg: Any) -> None:
        smuggled.append(msg)

    await client.subscribe("smuggled", cb=caught)
    noria.broker.connection.on_reconnect.append(lambda: disconnected.append(1))
    async with noria.worker(flow):
        known = {"run_id": "r", "workflow": "flow"}
        bodies = [
            (verb, {**{k: v for k, v in known.items() if k in model.model_fields}, field: name})
            for verb, model in control.VERBS.items() for field in model.model_fields for name in NAMES
            if not (field in ("wait", "seconds") and name == 5)
        ]  # fmt: skip
        for at in range(0, len(bodies), 50):
            asked = [client.request(f"{noria.namespace}.api.{verb}", json.dumps(body).encode(), timeout=30) for verb, body in bodies[at : at + 50]]
            answers = await asyncio.gather(*asked)
            for (verb, body), answer in zip(bodies[at : at + 50], answers, strict=True):
                refused = (answer.headers or {}).get("Nats-Service-Error-Code")
                assert answer.data and refused in (None, "400", "404", "409"), (verb, body, answer)
        await client.flush()
        assert not smuggled and not disconnected and not [r for r in caplog.records if r.exc_info]
        assert (await asyncio.wait_for(noria.run(flow, 2), 20)).status == "suspended"
    await client.close()

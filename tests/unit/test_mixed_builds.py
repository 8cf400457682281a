"""What a newer build may add to a document without raising its FORMAT is left out by an older one, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from noria.contract import builds, calls, commands, control, envelopes, presence, results, schedules
from noria.contract.envelopes import Envelope
from noria.contract.facts import Fact, FactMessage, Finished, Started, StepEnded, StepSuspended, Writes
from noria.contract.rewinds import Assumed, Held, Retried, Rewind, Rewound
from noria.contract.values import dumps, loads
from noria.errors import InvalidInput
from noria.machine.fold import fold_command, fold_message
from noria.machine.state import Tree

FREE = ("input", "output", "state", "context", "records", "data", "attributes")  # the user's own: an added name there is another value


def grown(value: Any) -> Any:
    """With a name more in every object that is the engine's."""
    if isinstance(value, list):
        return [grown(each) for each in value]
    if isinstance(value, dict):
        return {**{k: each if k in FREE else grown(each) for k, each in value.items()}, "brand_new": {"x": 1}}
    return value


COMMANDS: list[commands.Command] = [
    commands.Start("c", 1.0, {"x": 1}), commands.Resume("c", 1.0, [("", "ask")], 5), commands.Cancel("c", 1.0), commands.Restart("c", 1.0),
    commands.TimerFired("c", 1.0, "", "ask", 2.0), commands.TimeTravel("c", 1.0, ["ask"]),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.kind)
def test_commands(command: commands.Command) -> None:
    body = loads(commands.encode(command))
    assert commands.decode(dumps({**body, "brand_new": 1})) == command


FACTS: list[Fact] = [
    Started({"x": 1}, None, 1.0), StepEnded("a", "success", 1.0, 2.0, {"y": 1}, writes=Writes({"k": 1})), StepSuspended("ask", 1.0, 2.0, None),
    Retried("inner", 2, 1, 3.0, 2.0), Rewound(3, 1.0, [Rewind("", "", done=["a"], steps={"a": Assumed(1, 2)})], {"/ask": Held()}),
    Finished("failed", 2.0, error={"type": "E", "message": "m"}),
]  # fmt: skip


@pytest.mark.parametrize("fact", FACTS, ids=lambda f: type(f).__name__)
def test_facts(fact: Fact) -> None:
    message = FactMessage([fact], 1, 1, "h", "i")
    body = loads(Envelope("n", "flow", "r").encode("", message))
    body["brand_new"] = body["data"]["brand_new"] = body["data"]["noria"]["brand_new"] = 1
    for part in (*body["data"]["noria"].get("rewinds", []), *body["data"]["noria"].get("held", {}).values()):
        part["brand_new"] = 1
        for assumed in part.get("steps", {}).values():
            assumed["brand_new"] = 1
    assert envelopes.decode(dumps(body)) == message


def test_records() -> None:
    tree = Tree()
    fold_command(tree, 1, "", commands.Start("c", 1.0, {"x": 1}))
    fold_message(tree, 2, "", FactMessage([Started({"x": 1}, None, 1.0), StepSuspended("ask", 1.0, 2.0, None)], 1, 1, "h", "i"))
    dumped = loads(dumps(tree.dump()))
    actors = [{**a, "brand_new": 1, "steps": {k: grown(s) for k, s in a["steps"].items()}} for a in dumped["actors"]]
    bigger = {**dumped, "brand_new": 1, "actors": actors}
    assert Tree.of(bigger).dump() == Tree.of(dumped).dump()


@pytest.mark.parametrize(
    ("encoded", "decode"),
    [
        (presence.encode(presence.Word("h", ["w"], [1])), presence.decode),
        (schedules.encode(schedules.Definition("* * * * * *")), schedules.definition),
        (schedules.encode(schedules.Past("r")), schedules.past),
        (schedules.encode(schedules.Declarations(["d"])), schedules.declarations),
    ],
)
def test_words_and_schedules(encoded: bytes, decode: Callable[[bytes], Any]) -> None:
    assert decode(dumps(grown(loads(encoded)))) == decode(encoded)


def test_answers_of_the_control_api() -> None:
    step = {"status": "success", "output": 1, "error": {"type": "E", "message": "m"}}
    result = {
        "run_id": "r", "workflow_id": "w", "status": "suspended", "steps": {"a": grown(step)}, "suspended": [grown({"path": ["a"]})],
        "tripwire": {"reason": "x", "brand_new": 1},
    }  # fmt: skip
    page = {"runs": [{"run_id": "r", "workflow_id": "w", "status": "success"}], "total": 1}
    kinds: list[tuple[Any, Any]] = [
        (control.Begun, {"run_id": "r", "workflow_id": "w", "sequence": 1}), (control.Settled, {"settled": False, "hosted": True}),
        (control.EventPage, {"events": [], "over": True}), (control.Refusal, {"error": {"type": "T", "message": "m"}}),
        (results.RunResult, result), (results.RunRecord, result), (results.RunPage, page),
    ]  # fmt: skip
    for kind, answer in kinds:
        more = {**answer, "brand_new": 1}
        if "runs" in more:
            more["runs"] = grown(more["runs"])
        assert control.read(kind, more) == control.read(kind, answer), kind
    error = control.error_of(dumps({"error": {"type": "RunNotFound", "message": "m", "brand_new": 1}, "brand_new": 1}), "m", "404")
    assert type(error).__name__ == "RunNotFound"
    assert str(control.error_of(dumps({"error": {"type": "BrandNew", "message": "m"}}), "m", "409")) == "BrandNew: m"


def test_a_request_of_a_newer_client_is_answered_and_a_typing_error_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert control.asked(workflow="w") == b'{"workflow":"w"}', "builds from before this field are asked too"
    monkeypatch.setattr(builds, "RELEASE", 2)
    newer = dumps({**loads(control.asked(workflow="w", input={"x": 1})), "brand_new": 1})
    monkeypatch.setattr(builds, "RELEASE", 1)
    assert control.request(control.Start, newer) == control.Start(v=2, workflow="w", input={"x": 1})
    with pytest.raises(InvalidInput, match="brand_new"):
        control.request(control.Start, dumps({"workflow": "w", "brand_new": 1}))
    with pytest.raises(InvalidInput, match="workflow"):
        control.request(control.Start, dumps({"v": 2, "workflow": 5, "brand_new": 1}))


MESSAGES: list[calls.Told] = [
    calls.Success(output={"x": 1}), calls.Suspended(payload=1), calls.Bailed(result=1), calls.Failed(), calls.Tripped(reason="x"), calls.Aborted(),
    calls.HandedBack(), calls.Heartbeat(), calls.Output(data={"x": 1}), calls.Emitted(name="n"),
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_of_a_newer_handler_is_taken_and_a_typing_error_is_not(message: calls.Told, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "v" not in loads(calls.encode(message)), "builds from before this field are told too"
    plain = loads(calls.encode(message))
    monkeypatch.setattr(builds, "RELEASE", 2)
    newer = dumps({**loads(calls.encode(message)), "brand_new": 1})
    monkeypatch.setattr(builds, "RELEASE", 1)
    assert calls.decode(newer) == message.model_copy(update={"v": 2})
    with pytest.raises(InvalidInput, match="brand_new"):
        calls.decode(dumps({**plain, "brand_new": 1}))


def test_a_call_of_a_newer_host_is_served() -> None:
    assert calls.decode_call(dumps({"input": 1, "brand_new": 1})).input == 1

"""The pure heart: the lease rules, last-writer-wins registers, records that come back as they were."""

from __future__ import annotations

from itertools import permutations

from noria.contract import commands, envelopes, facts
from noria.contract.facts import FactMessage, Finished, Rested, Started, StepEnded, StepSuspended, Writes
from noria.contract.values import dumps, loads
from noria.machine.fold import fold_command, fold_message
from noria.machine.lease import judge
from noria.machine.state import Tree, live
from noria.machine.view import view

START = commands.Start("c", 1.0, {"x": 1}, state={"a": 0})


def message(*entries, in_seen: int = 1, door: int = 1, host: str = "h") -> FactMessage:
    return FactMessage(list(entries), in_seen, door, host, "id")


def ended(step: str, output=None, **more) -> StepEnded:
    return StepEnded(step, "success", 1.0, 2.0, output, **more)


def test_rule_one_a_new_actor_is_hosted_by_its_oldest_command() -> None:
    tree = Tree()
    assert judge(tree, 1) == "ack", "never started: nothing to do"
    fold_command(tree, 1, "", START)
    fold_command(tree, 4, "", commands.Cancel("c2", 2.0))
    assert (judge(tree, 1), judge(tree, 4)) == ("host", "wait")


def test_an_active_actor_is_hosted_by_its_door_only() -> None:
    tree = Tree()
    fold_command(tree, 1, "", START)
    fold_message(tree, 2, "", message(ended("a")))
    fold_command(tree, 3, "", commands.Restart("c2", 2.0))
    assert (judge(tree, 1), judge(tree, 3)) == ("host", "wait")
    assert (judge(tree, 1, "h"), judge(tree, 1, "other")) == ("host", "drop"), "a refused host gives way to who wrote"


def test_a_resting_actor_acknowledges_what_it_consumed_and_is_woken_by_the_rest() -> None:
    tree = Tree()
    fold_command(tree, 1, "", START)
    fold_message(tree, 2, "", message(StepSuspended("a", 1.0, 2.0)))
    fold_command(tree, 3, "", commands.Resume("c2", 2.0, [("", "a")], 7))
    assert (judge(tree, 1), judge(tree, 3)) == ("ack", "host")
    fold_message(tree, 4, "", message(Finished("success", 3.0), in_seen=3, door=3))
    assert (judge(tree, 1), judge(tree, 3)) == ("ack", "ack")


def test_chains_commute() -> None:
    entries = [
        (5, "m1", message(ended("m1", 1, leaf=True, writes=Writes({"k": "m1", "one": 1})))),
        (6, "m2", message(ended("m2", 2, leaf=True, writes=Writes({"k": "m2"}, {"c": 1})))),
        (7, "", message(Rested("paused", 3.0))),
        (8, "m3", message(ended("m3", 3, leaf=True, writes=Writes({"k": "m3"}, None, ["c"])))),
    ]
    seen = set()
    for order in permutations(entries):
        tree = Tree()
        fold_command(tree, 1, "", START)
        for sequence, path, entry in order:
            fold_message(tree, sequence, path, entry)
        seen.add(dumps([live(tree.state), live(tree.context)]))
        assert live(tree.state)["k"] == "m3" and live(tree.context) == {}
    assert len({bytes(sorted(s)) for s in seen}) == 1


def test_a_record_comes_back_as_it_was() -> None:
    tree = Tree()
    fold_command(tree, 1, "", START)
    fold_message(tree, 2, "", message(Started({"x": 1}, "r", 1.0), ended("a", [1, {"b": None}])))
    fold_message(tree, 3, "", message(StepSuspended("b", 1.0, 2.0, {"why": 1}, ["l"])))
    again = Tree.of(loads(dumps(tree.dump())))
    assert dumps(again.dump()) == dumps(tree.dump()) and view(again, "w", "r") == view(tree, "w", "r")


def test_facts_and_commands_cross_the_wire() -> None:
    envelope = envelopes.Envelope("noria", "order", "r1")
    sent = message(
        Started(1, None, 1.0), ended("a", {"x": 1}, has_input=True, input=2, round=3, bail=True, writes=Writes({"s": 1}, {"c": 2}, ["d"])),
        StepSuspended("b", 1.0, 2.0, {"p": 1}, ["l"], "out", attempts=2), facts.StepWaiting("c", 1.0, 9.0, 1),
        facts.Answered("e", ["x"]), facts.BlockEnded("f", "foreach", "success", 2.0, total=3), Rested("suspended", 2.0),
        facts.TakenOver(2.0), facts.HandedOver(2.0), Finished("failed", 2.0, error={"type": "E", "message": "m", "attributes": {}, "cause": None}),
    )  # fmt: skip
    assert envelopes.decode(envelope.encode("", sent)) == sent
    for command in (START, commands.Resume("i", 1.0, [("p", "s")], 1), commands.Cancel("i", 1.0), commands.TimerFired("i", 1.0, "p", "s", 2.0)):
        assert commands.decode(commands.encode(command)) == command


def test_a_take_over_counts_unless_the_host_before_said_that_it_leaves() -> None:
    tree, counts = Tree(), list[int]()
    fold_command(tree, 1, "", START)
    killed, left = [facts.TakenOver(2.0)], [facts.HandedOver(2.0)]
    for sequence, told in enumerate([killed, killed, left, killed, killed, left, left, killed, [ended("a", 1)], left, killed, killed], 2):
        fold_message(tree, sequence, "", message(*told, in_seen=1, door=1))
        tree = Tree.of(loads(dumps(tree.dump())))
        counts.append(tree.takeovers)
    assert counts == [1, 2, 2, 2, 3, 3, 3, 3, 0, 0, 0, 1] and tree.root.status == "active"


def test_iso_is_what_datetime_says() -> None:
    from datetime import UTC, datetime

    for seconds in (0.0, 1.5, 1795478400.123456, 1795478400.999999, 1795478401.0):
        assert abs(datetime.fromisoformat(envelopes.iso(seconds)).timestamp() - seconds) < 2e-6
        assert datetime.fromisoformat(envelopes.iso(seconds)).tzinfo == UTC

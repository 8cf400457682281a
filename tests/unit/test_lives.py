"""Lives: what a time travel makes of a tree, who may carry it out, and what still arrives for a life that is over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from noria import Workflow, step
from noria.actor.shared import Record
from noria.contract import commands, envelopes
from noria.contract.facts import Answered, BlockEnded, Fact, FactMessage, Finished, Started, StepEnded, StepSuspended, TakenOver
from noria.contract.rewinds import Assumed, Held, Retried, Rewind, Rewound
from noria.contract.values import dumps, loads
from noria.errors import GraphMismatch
from noria.machine.decide import decide
from noria.machine.fold import fold_command, fold_message, link
from noria.machine.lease import judge
from noria.machine.lives import rewind
from noria.machine.running import show_running
from noria.machine.state import Actor, Tree, place
from noria.machine.tasks import RunChildren, RunStep
from noria.machine.time_travel import rewound
from noria.machine.view import settled, status, view


def message(*entries: Fact, in_seen: int = 1, door: int = 1) -> FactMessage:
    return FactMessage(list(entries), in_seen, door, "h", "id")


def ended(id: str, output: Any = None, **more: Any) -> StepEnded:
    return StepEnded(id, "success", 1.0, 2.0, output, **more)


def flow() -> Workflow:
    a, b, c, d = (step(lambda x: x, id=id) for id in "abcd")
    return Workflow("w").then(a).then(Workflow("n").then(b).then(c)).then(d).commit()


def done() -> Tree:
    """A run that ended."""
    tree = Tree()
    fold_command(tree, 1, "", commands.Start("s", 1.0, 0))
    fold_message(tree, 2, "", message(Started(0, None, 1.0), ended("a", 1)))
    fold_message(tree, 3, "n", message(ended("b", 2), in_seen=0))
    fold_message(tree, 4, "n", message(ended("c", 3), Finished("success", 2.0), in_seen=0))
    fold_message(tree, 5, "", message(Finished("failed", 3.0, error={"type": "E", "message": "m"})))
    return tree


def travelled(tree: Tree, sequence: int, command: commands.TimeTravel) -> Rewound:
    fold_command(tree, sequence, "", command)
    fact = rewound(flow(), tree, sequence, command, 9.0)
    fold_message(tree, sequence + 1, "", message(fact, in_seen=sequence, door=sequence))
    return fact


def test_only_a_time_travel_wakes_a_run_that_ended() -> None:
    tree = done()
    fold_command(tree, 6, "", commands.Resume("r", 4.0))
    assert judge(tree, 6) == "ack" and settled(tree) and status(tree) == "failed"
    fold_command(tree, 7, "", commands.TimeTravel("t", 5.0, ["d"]))
    fold_command(tree, 8, "", commands.Cancel("c", 6.0))
    assert [judge(tree, n) for n in (6, 7, 8)] == ["ack", "host", "wait"]
    assert not settled(tree) and status(tree) == "running"
    fold_message(tree, 9, "", message(TakenOver(6.0)))
    assert tree.root.status == "failed", "nothing but a rewound fact lets it go on"
    fact = rewound(flow(), tree, 7, tree.travels[7], 7.0)
    fold_message(tree, 10, "", message(fact, in_seen=8, door=7))
    assert tree.root.status == "active" and tree.cancel == 8, "the cancel came after the travel"
    assert [judge(tree, n) for n in (6, 7, 8)] == ["ack", "host", "ack"] and not tree.travels


def test_a_cancel_before_the_travel_is_past() -> None:
    tree = done()
    fold_command(tree, 6, "", commands.Cancel("c", 4.0))
    travelled(tree, 7, commands.TimeTravel("t", 5.0, ["d"]))
    assert tree.cancel == 0 and tree.root.error is None and tree.root.ended_at is None


def test_a_place_that_lives_again_has_a_name_of_its_own() -> None:
    tree = done()
    travelled(tree, 6, commands.TimeTravel("t", 5.0, ["n", "c"], 7))
    task = decide(tree, tree.root, flow(), 9.0)
    assert isinstance(task, RunChildren) and task.segments == ["n@2"] and "n" not in tree.actors
    nested = tree.actors["n@2"]
    task = decide(tree, nested, flow().units["n"], 9.0)
    assert isinstance(task, RunStep) and (task.step.id, task.input) == ("c", 7)
    assert (nested.steps["b"].output, nested.input, nested.last, list(nested.steps)) == (7, 1, 0, ["b"])
    fold_message(tree, 8, "n", message(ended("c", "late"), in_seen=0))
    fold_command(tree, 9, "n", commands.Start("s2", 1.0, 0))
    fold_command(tree, 10, "", commands.Resume("r", 1.0, [("n", "c")], 1))
    show_running(tree, 10, "n", "workflow-step-start", "c", 1.0, {"input": 1})
    assert "n" not in tree.actors and "c" not in nested.steps, "what comes for a life that is over is passed over"
    assert tree.root.children["n"] == ["n@2"]
    travelled(tree, 11, commands.TimeTravel("t2", 5.0, ["n"]))
    assert decide(tree, tree.root, flow(), 9.0).segments == ["n@3"] and "n@2" not in tree.actors  # type: ignore[union-attr]


def test_a_round_and_a_retry_begin_a_life() -> None:
    tree = Tree()
    fold_command(tree, 1, "", commands.Start("s", 1.0, 0))
    fold_message(tree, 2, "n", message(ended("b", 5), Finished("success", 2.0), in_seen=0))
    fold_message(tree, 3, "", message(Answered("n.1", False, 2)))
    assert (tree.root.prev, tree.root.seg("n"), tree.root.rounds) == (5, "n@2", {"n": 2}) and tree.actor("n@2").input == 5
    fold_message(tree, 4, "n@2", message(Finished("failed", 2.0), in_seen=0))
    assert "n" not in tree.actors, "the last round is forgotten once the next one begins"
    fold_message(tree, 5, "", message(Retried("n", 3, 1, 20.0, 10.0)))
    assert (tree.root.seg("n"), tree.root.retries, tree.actor("n@3").input, tree.actor("n@3").until) == ("n@3", {"n": 1}, 5, 20.0)


def test_an_item_that_its_fan_out_forgot_does_not_come_back() -> None:
    tree, start = Tree(), commands.Start("c", 1.0, 7)
    item = message(ended("f", 7, leaf=True), in_seen=3)
    block = message(BlockEnded("f", "foreach", "success", 3.0, total=1))
    fold_command(tree, 1, "", commands.Start("s", 1.0, [7]))
    fold_message(tree, 2, "", message(Started([7], None, 1.0)))
    fold_command(tree, 3, "f=0", start)
    fold_message(tree, 4, "f=0", item)
    fold_message(tree, 5, "", block)
    again = Tree.of(loads(dumps(tree.dump())))
    fold_command(again, 3, "f=0", start)  # whoever goes on by a record reads all commands again
    fold_message(again, 4, "f=0", item)
    assert list(again.actors) == [""] and again.root.children == {} and again.pending == tree.pending
    alone = again.at("f=0")  # its own facts aged out: the start that comes back begins nothing
    fold_command(alone, 3, "f=0", start)
    assert judge(alone, 3) == "ack" and judge(again.at("f=1"), 9) == "ack" and again.at("later").root.status == "new"


def test_a_suspension_is_held_until_its_step_is_reached() -> None:
    tree = done()
    fold_command(tree, 6, "", commands.TimeTravel("t", 5.0, ["n"]))
    fact = rewound(flow(), tree, 6, tree.travels[6], 9.0)
    fold_message(tree, 7, "", message(fact, in_seen=6))
    fold_message(tree, 8, "n@2", message(StepSuspended("b", 1.0, 2.5, {"why": 1}), in_seen=0))
    fold_message(tree, 9, "", message(Finished("canceled", 3.0), in_seen=6))
    fact = travelled(tree, 10, commands.TimeTravel("t2", 5.0, ["a"], resume={"ok": True}))
    assert fact.held[place("n@2", "b")] == Held({"why": 1}, 2.5)
    again = Tree.of(loads(dumps(tree.dump())))
    for each in (tree, again):
        task = decide(each, each.actor("n@3"), flow().units["n"], 9.0)
        assert isinstance(task, RunStep) and task.resume == [10, {"ok": True}]
        fold_message(each, 12, "n@3", message(ended("b", 1, has_resume=True, resume_payload={"ok": True}), in_seen=0))
        assert "n.b" not in each.held and each.actors["n@3"].steps["b"].suspend_payload == {"why": 1}
    assert view(again, "w", "r", nested=True) == view(tree, "w", "r", nested=True)


def test_a_graph_without_the_target_is_refused() -> None:
    tree = done()
    fold_command(tree, 6, "", commands.TimeTravel("t", 5.0, ["gone"]))
    with pytest.raises(GraphMismatch, match="'gone'"):
        rewound(flow(), tree, 6, tree.travels[6], 9.0)


def test_they_cross_the_wire() -> None:
    rewind = Rewind(
        "n@2", "n", 1, 2, ["e"], ["b"], ["b"], ["i=1"], {"b": 2}, {"c": Assumed(1, 2, 3.0, 4.0)}, {"d@2": Assumed()}, {"e": ["b", "c"]}
    )  # fmt: skip
    sent = message(Rewound(7, 8.0, [rewind], {"n.b": Held({"p": 1}, 1.0)}, {"r": 1}), Retried("n", 3, 1, 9.0, 8.0), Answered("l.1", True, 2))
    assert envelopes.decode(envelopes.Envelope("noria", "w", "r").encode("", sent)) == sent
    command = commands.TimeTravel("t", 1.0, ["n", "b"], 1, 2, {"a": {"output": 1}}, {"s": 1}, {"c": 1}, True, "res", "2", None, {"base": ""})
    assert commands.decode(commands.encode(command)) == command


@pytest.mark.parametrize(("path", "verdict"), [("f=0", "ack"), ("f=0@2", "host")])
def test_an_item_is_begun_though_the_record_is_older_than_its_life(path: str, verdict: str) -> None:
    """Its foreach had ended then: the items of that life were forgotten, those of a later one had not begun."""
    tree = Tree()
    fold_command(tree, 1, "", commands.Start("id", 1.0, [1]))
    fold_message(tree, 2, "", message(BlockEnded("f", "foreach", "success", 2.0, total=1), Finished("success", 2.0)))
    item = tree.at(path)
    fold_command(item, 9, path, commands.Start("id", 3.0, 1))
    assert judge(item, 9) == verdict


def test_what_concerns_one_actor_is_read_without_its_siblings() -> None:
    tree = Tree()
    for path in ("pack=1", "pack=10", "pack=1.ship", "pack=1.ship.label@2", "pack=2.ship", "pick"):
        tree.actor(path).last = 5
    tree.root.lives["pack=3"] = 2
    tree.state["k"] = [3, 1]
    stored = dumps({"v": 1, "tree": tree.dump()})
    record = Record(stored)
    for path in ("pack=1", "pack=1.ship", "pack=3", "pick", "gone"):
        whole, near = Tree.of(loads(stored)["tree"]).at(path), Tree.of(record.near(path)["tree"]).at(path)
        assert near.dump() == whole.dump(), path
    assert sorted(Tree.of(record.near("pack=1.ship")["tree"]).actors) == ["", "pack=1", "pack=1.ship", "pack=1.ship.label@2"]


def test_a_time_travel_over_a_wide_foreach_does_not_look_at_all_for_each() -> None:
    looks = 0

    class Counted(dict[str, Actor]):
        def __iter__(self) -> Iterator[str]:
            nonlocal looks
            looks += 1
            return super().__iter__()

        def items(self) -> Any:
            nonlocal looks
            looks += 1
            return super().items()

    tree, kept = Tree(), [f"pack={n}" for n in range(200)]
    for path in kept:
        link(tree, tree.actor(path))
        tree.actor(f"{path}.inside")
    tree.actors = Counted(tree.actors)
    rewind(tree, Rewound(1, 1.0, [Rewind("", "", items=kept, order=["pack"])]))
    assert tree.root.children["pack"] == kept and len(tree.actors) == 401 and looks < 5

"""What comes over the wire is refused where it comes in: types, sizes, paths, formats."""

from __future__ import annotations

import pytest

from noria.contract import commands, envelopes
from noria.contract.values import BAD_DATA, dumps, loads
from noria.errors import NewerFormat, NoriaError
from noria.machine.fold import fold_unreadable
from noria.machine.state import Tree

START = {"v": 1, "kind": "start", "id": "c", "at": 1.0, "input": {"x": 1}}
ENDED = {"k": "step-ended", "t0": 1.0, "t1": 2.0, "v": 1, "in_seen": 1, "door": 1, "host": "h"}


def fact(**noria: object) -> bytes:
    event = {"specversion": "1.0", "id": "e", "type": "t", "step": "s", "data": {"status": "success", "output": 1, "noria": {**ENDED, **noria}}}
    return dumps(event)


@pytest.mark.parametrize(
    "change",
    [{"state": 5}, {"at": "now"}, {"at": 1e300}, {"at": -1}, {"at": True}, {"member": -1}, {"member": 2**70}, {"id": None}, {"per_step": 1}],
)  # fmt: skip
def test_a_command_of_wrong_types_is_none(change: dict[str, object]) -> None:
    commands.decode(dumps(START))
    with pytest.raises(NoriaError, match="not a command"):
        commands.decode(dumps({**START, **change}))


@pytest.mark.parametrize("targets", [5, [1], [["a"]], [["a", 1]], [["a", "b", "c"]], {"a": "b"}])
def test_a_resume_of_wrong_targets_is_none(targets: object) -> None:
    with pytest.raises(NoriaError, match="not a command"):
        commands.decode(dumps({"v": 1, "kind": "resume", "id": "c", "at": 1.0, "targets": targets}))


@pytest.mark.parametrize("target", [5, [], [1], "ask", [["a"]]])
def test_a_time_travel_to_no_place_is_none(target: object) -> None:
    with pytest.raises(NoriaError, match="not a command"):
        commands.decode(dumps({"v": 1, "kind": "time-travel", "id": "c", "at": 1.0, "target": target}))


@pytest.mark.parametrize(
    "change",
    [{"t1": "x"}, {"t1": 1e18}, {"in_seen": "1"}, {"in_seen": -1}, {"door": None}, {"host": 7}, {"n": "many"}, {"k": "unknown"}, {"v": "x"},
     {"k": "block-ended", "entry": "e", "kind": "foreach", "st": "success", "total": 10**12}],
)  # fmt: skip
def test_a_fact_of_wrong_types_is_none(change: dict[str, object]) -> None:
    envelopes.decode(fact())
    with pytest.raises(NoriaError, match="not a message of facts"):
        envelopes.decode(fact(**change))


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"[[]]", b"{}", b'"x"', b"\xff", b"[" * 5000, b'{"data":null}', b'{"data":{"noria":5}}'])
def test_rubbish_is_neither(body: bytes) -> None:
    for decode in (commands.decode, envelopes.decode):
        with pytest.raises(NoriaError):
            decode(body)


def test_a_newer_format_is_refused_as_such() -> None:
    with pytest.raises(NewerFormat, match="upgrade"):
        commands.decode(dumps({**START, "v": 2, "kind": "unheard-of"}))
    with pytest.raises(NewerFormat, match="upgrade"):
        envelopes.decode(fact(v=2, k="unheard-of"))


def test_an_unreadable_command_is_consumed_like_one_that_changes_nothing() -> None:
    tree = Tree()
    fold_unreadable(tree, 7, "", is_command=True)
    fold_unreadable(tree, 9, "", is_command=False)
    assert tree.pending == [(7, "")] and tree.root.last == 9


@pytest.mark.parametrize("change", [{"pending": 5}, {"actors": [{}]}, {"state": {"k": 5}}, {"cancel": "x"}, {"created_at": []}, {"base": 5}])
def test_a_record_of_another_shape_is_refused(change: dict[str, object]) -> None:
    good = loads(dumps(Tree().dump()))
    assert Tree.of(loads(dumps(good))).dump() == Tree().dump()
    with pytest.raises(BAD_DATA):
        Tree.of({**good, **change})


def test_a_record_of_a_later_release_may_have_more_fields() -> None:
    good = loads(dumps(Tree().dump()))
    good["colour"] = "blue"
    good["actors"][0]["shape"] = "round"
    assert Tree.of(good).dump() == Tree().dump()


def test_a_life_without_a_former_one_has_no_input_and_no_end() -> None:
    assert Tree().actor("poll@1000000000").input is None

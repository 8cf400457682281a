"""The protocol models hold, and each rule of them is needed. `just models` explores further: more crashes, all clients."""

from __future__ import annotations

import pytest

from tests.models import actor, inplace, leaving, record, stale, travel, tree

CANCELED, RIVALS = ("start", "resume", "cancel"), ("start", "resume", "resume")


@pytest.mark.parametrize(("expiries", "rescues"), [(1, 0), (0, 1)])
def test_one_actor_keeps_its_promises(expiries: int, rescues: int) -> None:
    found = actor.Model(crashes=1, expiries=expiries, rescues=rescues, clients=CANCELED).explore()
    assert found.states > 10_000 and found.finals > 10
    assert actor.Model(crashes=1, expiries=expiries, rescues=rescues, clients=RIVALS).explore().states > 5_000


@pytest.mark.parametrize("mutation", actor.MUTATIONS)
def test_each_rule_for_one_actor_is_needed(mutation: str) -> None:
    clients = RIVALS if mutation == "no-command-cas" else CANCELED
    with pytest.raises(AssertionError):
        actor.Model(mutation, crashes=1, expiries=0, clients=clients).explore()


def test_parent_and_child_come_to_their_end() -> None:
    assert tree.Model(crashes=1, expiries=0).explore().states > 9_000


@pytest.mark.parametrize("mutation", tree.MUTATIONS)
def test_each_rule_for_parent_and_child_is_needed(mutation: str) -> None:
    with pytest.raises(AssertionError):
        tree.Model(mutation, crashes=1, expiries=0).explore()


def test_children_in_place_are_taken_over() -> None:
    assert inplace.Model(crashes=1, expiries=1).explore().states > 50_000


@pytest.mark.parametrize("mutation", inplace.MUTATIONS)
def test_each_rule_for_children_in_place_is_needed(mutation: str) -> None:
    with pytest.raises(AssertionError):
        inplace.Model(mutation, crashes=1, expiries=1).explore()


def test_a_host_that_leaves_in_order_is_no_sign_of_poison() -> None:
    assert leaving.Model(crashes=2, leaves=2).explore().states > 10_000


@pytest.mark.parametrize("mutation", leaving.MUTATIONS)
def test_each_rule_for_leaving_is_needed(mutation: str) -> None:
    with pytest.raises(AssertionError):
        leaving.Model(mutation, crashes=2, leaves=2).explore()


@pytest.mark.parametrize(("crashes", "expiries"), [(1, 0), (0, 1)])
def test_a_record_and_an_ageing_log_are_the_run(crashes: int, expiries: int) -> None:
    assert record.Model(crashes=crashes, expiries=expiries, starts=1).explore().states > 1_000


@pytest.mark.parametrize("mutation", record.MUTATIONS)
def test_each_rule_for_the_record_is_needed(mutation: str) -> None:
    with pytest.raises(AssertionError):
        record.Model(mutation).explore()


@pytest.mark.parametrize("clients", [CANCELED, RIVALS])
def test_replicas_may_lag(clients: tuple[str, ...]) -> None:
    assert stale.Model(crashes=1, expiries=0, rescues=0, clients=clients).explore().states > 1_000


@pytest.mark.parametrize("mutation", stale.MUTATIONS)
def test_each_rule_for_lagging_replicas_is_needed(mutation: str) -> None:
    clients = RIVALS if mutation == "no-command-cas" else CANCELED
    with pytest.raises(AssertionError):
        stale.Model(mutation, crashes=1, expiries=0, rescues=0, clients=clients).explore()


TRAVELS = ("start", "travel", "cancel")


@pytest.mark.parametrize(("expiries", "clients"), [(0, TRAVELS), (1, ("start", "travel", "travel"))])
def test_an_ended_run_travels(expiries: int, clients: tuple[str, ...]) -> None:
    assert travel.Model(crashes=1, expiries=expiries, rescues=0, clients=clients).explore().states > 2_000


@pytest.mark.parametrize("mutation", travel.MUTATIONS)
def test_each_rule_for_time_travel_is_needed(mutation: str) -> None:
    clients = ("start", "travel", "travel") if mutation == "no-command-cas" else TRAVELS
    with pytest.raises(AssertionError):
        travel.Model(mutation, crashes=1, expiries=int(mutation == "no-cas"), rescues=0, clients=clients).explore()

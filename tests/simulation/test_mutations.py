"""The simulation bites: each rule that is left out breaks a world."""

from __future__ import annotations

import pytest

from tests.simulation.mutations import MUTATIONS, hunt_all


@pytest.mark.timeout(600)  # for a busy machine: a matter of half a minute
def test_every_mutation_is_caught() -> None:
    found = dict(hunt_all())
    assert found.keys() == MUTATIONS.keys()
    assert not [name for name, why in found.items() if not why], "nobody noticed"

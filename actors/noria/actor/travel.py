"""A time travel on its host: the one append by which the run goes on elsewhere."""

from __future__ import annotations

from noria.actor.activation import Activation
from noria.clock import now
from noria.contract.facts import Fact, Started
from noria.machine.time_travel import rewound


async def travel(activation: Activation) -> None:
    """Do what the newest time travel says. The append fences whoever hosted before: nothing that they do counts in the
    lives that begin here. Raises GraphMismatch."""
    tree, root = activation.tree, activation.tree.root
    sequence, command = max(tree.travels.items())
    fact = rewound(activation.workflow, tree, sequence, command, now())
    facts: list[Fact] = [fact]
    if root.last == 0:
        facts.insert(0, Started(fact.rewinds[0].input, tree.resource_id, now()))
    await activation.journal.append(root, facts)

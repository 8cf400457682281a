"""The three rules of architecture.md 1.2, as one pure function."""

from __future__ import annotations

from typing import Literal, TypeAlias

from noria.machine.state import ENDED, RESTING, Tree

Verdict: TypeAlias = Literal["host", "ack", "wait", "drop"]


def judge(tree: Tree, sequence: int, hosted_as: str | None = None) -> Verdict:
    """What to do with the delivery of the command at `sequence`.

    `hosted_as`: nonce of the activation that hosted on this very delivery before and was refused; it goes on only if
    nobody else has written since.
    """
    root = tree.root
    if not root.started or tree.over:
        return "ack"
    if root.status in ENDED:  # a time travel is about to let it go on; what came before it came to an ended run
        travel = min(tree.travels)
        return "host" if sequence == travel else "ack" if sequence < travel else "wait"
    if root.status == "new" or root.status in RESTING:
        if sequence <= root.in_seen:
            return "ack"
        oldest = next((s for s, path in tree.pending if path == tree.base and s > root.in_seen), None)
        return "host" if sequence == oldest else "wait"
    if sequence == root.door:
        return "host" if hosted_as is None or root.host == hosted_as else "drop"
    return "ack" if sequence <= root.in_seen else "wait"

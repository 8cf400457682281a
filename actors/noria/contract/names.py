"""Names that a caller gives: each becomes a token of subjects and keys."""

from __future__ import annotations

from typing import Any

from noria.errors import InvalidInput
from noria.ids import NAME, RUN_ID


def checked_run(run_id: Any) -> str:
    """The run id itself. Raises InvalidInput."""
    if not isinstance(run_id, str) or not RUN_ID.fullmatch(run_id):
        raise InvalidInput(f"run id {run_id!r}: use 1 to 128 letters, digits, '-' and '_'")
    return run_id


def checked_workflow(workflow: Any) -> str:
    """The workflow's id itself. Raises InvalidInput."""
    if not isinstance(workflow, str) or not NAME.fullmatch(workflow):
        raise InvalidInput(f"workflow id {workflow!r}: use letters, digits, '-' and '_'")
    return workflow

"""What an exception of the user's code makes of a run."""

from __future__ import annotations

from typing import Any

from noria.contract.values import error_info, plain
from noria.errors import Tripwire


def failure(error: Exception, step: str, what: str = "") -> dict[str, Any]:
    """A fact's status, with its error or tripwire; `what` failed: it goes before the message."""
    if isinstance(error, Tripwire):
        info = {"reason": error.reason, "retry": error.retry, "metadata": plain(error.metadata), "step": step}
        return {"status": "tripwire", "tripwire": info}
    info = error_info(error)
    return {"status": "failed", "error": {**info, "message": f"{what}: {info['message']}"} if what else info}

"""What came of a user's code, as facts."""

from __future__ import annotations

from typing import Any

from noria.actor.journal import Fenced
from noria.contract.facts import Fact, Finished, StepEnded
from noria.contract.values import error_info, plain
from noria.errors import BrokerUnavailable, Tripwire
from noria.ports import Refused
from noria.workflow.context import AbortSignal

ENGINE = (Fenced, Refused, BrokerUnavailable, AbortSignal)  # not the user's failures


def failure(error: Exception, step: str, what: str = "") -> dict[str, Any]:
    """A fact's status, with its error or tripwire; `what` failed: it goes before the message."""
    if isinstance(error, Tripwire):
        info = {"reason": error.reason, "retry": error.retry, "metadata": plain(error.metadata), "step": step}
        return {"status": "tripwire", "tripwire": info}
    info = error_info(error)
    return {"status": "failed", "error": {**info, "message": f"{what}: {info['message']}"} if what else info}


def with_end(fact: StepEnded, final: bool) -> list[Fact]:
    """An entry's fact, and the end of the workflow where it brings that about; `final`: a success does."""
    if fact.status != "success":
        return [fact, Finished(fact.status, fact.ended_at, error=fact.error, tripwire=fact.tripwire)]
    return [fact, Finished("success", fact.ended_at)] if final or fact.bail else [fact]

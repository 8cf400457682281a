"""Documents between builds of different ages.

A number called FORMAT is raised when older builds must not read what newer ones write. Anything less is a field more, and
whoever does not know it leaves it out. Only where people write by hand, requests of the control API and messages of step
handlers, is an unknown name a typing error and refused: there a sender that knows more than RELEASE 1 says so in `v`. A field
that must not be ignored is no field but another verb, or another FORMAT.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, Field

from noria.contract.values import as_dict, loads

RELEASE = 1  # raised with each field that is added to what people write by hand
Release: TypeAlias = Annotated[int, Field(ge=1, description="the release of these documents that the sender was made for, where it is not the first")]
M = TypeVar("M", bound=BaseModel)


def of_newer_build(body: bytes) -> dict[str, Any] | None:
    """The document when its sender is of a newer build, whose names need not all be known; else None."""
    try:
        data = as_dict(loads(body))
    except ValueError:
        return None
    release = None if data is None else data.get("v")
    return data if type(release) is int and release > RELEASE else None


def known_of(kind: type[M], data: dict[str, Any]) -> M:
    """What this build knows of a newer one's document. Raises pydantic's ValidationError."""
    return kind.model_validate({name: value for name, value in data.items() if name in kind.model_fields})

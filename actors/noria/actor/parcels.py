"""Bodies above the inline limit live in the blobs; what is stored in their place is a parcel slip."""

from __future__ import annotations

import re

from noria.chance import token
from noria.contract import commands
from noria.contract.values import SLIP, as_dict, dumps, loads
from noria.errors import InvalidInput, NoriaError
from noria.limits import MAX_VALUE_BYTES
from noria.ports import Broker, RunKey

_NAME = re.compile(r"[0-9a-f]{64}-[0-9]{1,4}")
_PASSING = re.compile(r"call-[0-9a-f]{32}-[0-9]{1,4}")


async def pack(broker: Broker, run: RunKey, body: bytes) -> bytes:
    """The body itself, or the slip of one that is too large."""
    return body if len(body) <= broker.inline_bytes else dumps({"noria_blob": await broker.blobs.put(run, body)})


async def pack_command(broker: Broker, run: RunKey, command: commands.Command) -> bytes:
    """The body to send for a command that holds a user's data. Raises InvalidInput when that is too large."""
    body = commands.encode(command)
    if len(body) > MAX_VALUE_BYTES:
        raise InvalidInput(f"{command.kind}: {len(body)} bytes of data, at most {MAX_VALUE_BYTES}: keep large data elsewhere, hand on where it is")
    return await pack(broker, run, body)


async def unpack(broker: Broker, run: RunKey, body: bytes) -> bytes:
    """The body that `pack` was given. Raises NoriaError when it is gone, or the slip is none."""
    return await broker.blobs.get(run, _name(body, _NAME)) if is_slip(body) else body


def is_slip(body: bytes) -> bool:
    """Whether it stands for a body in the blobs."""
    return body.startswith(SLIP)


def passing() -> str:
    """A name for a message that is not kept: no value of a run has one like it."""
    return f"call-{token(16).hex()}"


def passing_of(slip: bytes) -> str:
    """The name on the slip of such a message. Raises NoriaError for another slip: who removes what it names takes no value."""
    return _name(slip, _PASSING)


def _name(slip: bytes, kind: re.Pattern[str]) -> str:
    try:
        name = (as_dict(loads(slip)) or {}).get("noria_blob")
    except ValueError:
        name = None
    if not isinstance(name, str) or not kind.fullmatch(name):
        raise NoriaError("not the slip of a parcel")
    return name

"""Bodies above the inline limit live in the blobs; what is stored in their place is a parcel slip."""

from __future__ import annotations

from noria.contract.values import dumps, loads
from noria.limits import MAX_INLINE_BYTES
from noria.ports import Broker, RunKey

_MARK = b'{"noria_blob":'


async def pack(broker: Broker, run: RunKey, body: bytes) -> bytes:
    """The body itself, or the slip of one that is too large."""
    return body if len(body) <= MAX_INLINE_BYTES else dumps({"noria_blob": await broker.blobs.put(run, body)})


async def unpack(broker: Broker, run: RunKey, body: bytes) -> bytes:
    """The body that `pack` was given."""
    return await broker.blobs.get(run, loads(body)["noria_blob"]) if body.startswith(_MARK) else body

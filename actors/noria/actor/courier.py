"""How the messages of one step call travel: as they are, sealed, or by reference when they are too large for a message."""

from __future__ import annotations

from noria.actor import parcels
from noria.contract import calls
from noria.contract.calls import ReplyAs, StepCall
from noria.errors import LimitExceeded
from noria.limits import MAX_VALUE_BYTES
from noria.ports import Broker, RunKey


class Courier:
    """Both ends of a call have one."""

    def __init__(self, broker: Broker, run: RunKey, call: str, reply_as: ReplyAs) -> None:
        self._broker, self._run, self._secret = broker, run, calls.secret(*run, call)
        self._seals, self._parcels = reply_as == "sealed", reply_as != "plain"
        self._left: list[str] = []

    @classmethod
    def of(cls, broker: Broker, call: StepCall) -> Courier:
        """The handler's end."""
        # a blob of who has a codec is sealed, which a caller without one cannot read
        reply_as: ReplyAs = "plain" if call.reply_as == "parcel" and broker.calls.seals else call.reply_as
        return cls(broker, RunKey(call.root, call.run_id), call.call, reply_as)

    async def close(self, body: bytes, shown: tuple[str, ...]) -> bytes:
        """What to send of a message; `shown` are fields that stay readable. Raises LimitExceeded for one that is too large
        even for the blobs. One that may not lie there comes back as it is, whatever its size."""
        port = self._broker.calls
        if len(body) <= port.max_bytes or not self._parcels:
            text = port.seal(self._secret, body, shown) if self._seals else body
            if len(text) <= port.max_bytes or not self._parcels:
                return text
        if len(body) > MAX_VALUE_BYTES:
            raise LimitExceeded(f"{len(body)} bytes, at most {MAX_VALUE_BYTES}: keep large data elsewhere, hand on where it is")
        name = await self._broker.blobs.put(self._run, body, parcels.passing())
        self._left.append(name)
        return calls.encode(calls.Parcel(noria_blob=name, root=self._run.workflow, run_id=self._run.run))

    async def open(self, body: bytes) -> bytes:
        """What was given to `close` at the other end. Raises NoriaError when it does not open, or is gone."""
        if self._parcels and parcels.is_slip(body):
            name = parcels.passing_of(body)
            self._left.append(name)
            return await self._broker.blobs.get(self._run, name)
        return self._broker.calls.unseal(self._secret, body) if self._seals else body

    def clear(self) -> None:
        """Of the caller, when it has its reply: what went by reference is not needed any more."""
        for name in self._left:
            self._broker.blobs.drop(self._run, name)


async def opened(broker: Broker, body: bytes) -> bytes:
    """A call as its caller wrote it. Raises InvalidInput for what is none, NoriaError for what this process cannot open."""
    if parcels.is_slip(body):
        parcel = calls.decode_parcel(body)
        return await broker.blobs.get(RunKey(parcel.root, parcel.run_id), parcel.noria_blob)
    secret = calls.secret_of(body)
    return body if secret is None else broker.calls.unseal(secret, body)

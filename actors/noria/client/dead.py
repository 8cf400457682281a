"""`noria.dead`: what could not be processed, and how it gets another chance."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from noria import ids
from noria.actor import parcels
from noria.clock import now
from noria.contract import commands
from noria.errors import InvalidInput, NoriaError, RunNotFound
from noria.ports import ActorKey, Letter, Refused, RunKey

if TYPE_CHECKING:
    from noria.client.noria import Noria


class Dead:
    """The dead letters of the namespace. They stay until the stream's age takes them; a replay removes nothing."""

    def __init__(self, noria: Noria) -> None:
        self._noria = noria

    async def list(
        self, *, kind: str | None = None, workflow: str | None = None, after: int = 0, limit: int = 100
    ) -> list[Letter]:
        """A page, oldest first: at most `limit` letters with a sequence above `after`. `kind`: trigger, poison,
        schedule, command, fact or record."""
        if limit < 1:
            raise InvalidInput(f"limit: at least 1, not {limit}")
        for name, value in (("kind", kind), ("workflow", workflow)):
            if value is not None and not ids.NAME.fullmatch(value):
                raise InvalidInput(f"{name} {value!r}: use letters, digits, '-' and '_'")
        await self._noria.broker.provision()
        return [*await self._noria.broker.triggers.dead(after, limit, kind=kind, workflow=workflow)]

    async def get(self, sequence: int) -> Letter | None:
        """The letter with this sequence; None when there is none."""
        found = await self.list(after=max(0, sequence - 1), limit=1)
        return found[0] if found and found[0].sequence == sequence else None

    async def replay(self, sequence: int, *, request_id: str | None = None) -> str | None:
        """Another chance: a trigger is published again with its original headers (None is returned); a run that was
        given up starts anew, with its input, under the run id that is returned. Raises RunNotFound when there is no such
        letter, NoriaError when it cannot be replayed. With `request_id`, which then is the run's, once however often it is asked."""
        letter = await self.get(sequence)
        if letter is None:
            raise RunNotFound(f"there is no dead letter {sequence}: noria dead list")
        if letter.cut:
            raise NoriaError(f"dead letter {sequence} is not whole here, too large or sealed: send the original again ({letter.reason})")
        if letter.kind == "trigger":
            # what the server itself would read again: an id that it still remembers would drop the message
            headers = {k: v for k, v in letter.headers.items() if not k.startswith("nats-")}
            await self._noria.broker.triggers.publish(letter.workflow, letter.body, headers, request_id or ids.run_id())
            return None
        if letter.kind == "poison":
            return await self._start_again(letter, request_id or ids.run_id())
        raise NoriaError(f"dead letter {sequence} is a {letter.kind}: kept to be looked at, it cannot be replayed")

    async def _start_again(self, letter: Letter, id: str) -> str:
        broker, former = self._noria.broker, RunKey(letter.workflow, letter.headers.get("noria-run", ""))
        start = commands.decode(await parcels.unpack(broker, former, letter.body))
        if not isinstance(start, commands.Start):
            raise NoriaError(f"dead letter {letter.sequence} holds no start")
        start.id, start.at, run = id, now(), RunKey(letter.workflow, id)
        with suppress(Refused):  # asked again: it began
            await broker.commands.send(ActorKey(*run), await parcels.pack(broker, run, commands.encode(start)), 0)
        return id

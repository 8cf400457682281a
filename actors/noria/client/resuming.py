"""One resume: checked against what is stored, sent as a compare-and-set, sent again when only others' commands came
between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from noria import ids
from noria.actor import parcels
from noria.actor.load import load_newest
from noria.actor.places import Places
from noria.client.again import sent_before
from noria.clock import now
from noria.contract import commands
from noria.contract.values import plain, plain_object
from noria.errors import GraphMismatch, InvalidInput, NewerFormat, NoriaError, RunNotSuspended, StepNotSuspended
from noria.machine.resume import Place, Target, Wanted, addresses, remaining, stretch, targets
from noria.machine.state import RESTING, Tree, live, split
from noria.ports import ActorKey, Refused, RunKey, Stored
from noria.workflow.builder import Workflow
from noria.workflow.steps import Step

if TYPE_CHECKING:
    from noria.client.noria import Noria


class Resuming:
    """A resume as its caller asked for it."""

    def __init__(
        self, noria: Noria, run: RunKey, workflow: Workflow | None, wanted: Wanted, data: Any, context: dict[str, Any] | None,
        per_step: bool, request_id: str | None = None,
    ) -> None:  # fmt: skip
        """`request_id`: given by who may ask for the same again; no resume is sent twice under one."""
        self._request_id = request_id
        self._noria, self._broker, self._key = noria, noria.broker, ActorKey(*run)
        self._workflow, self._wanted = workflow, wanted
        self._data, self._context, self._per_step = plain(data), plain_object("request_context", context), per_step

    async def begin(self) -> int:
        """Send it; the sequence of the command that does what was asked for: a rival's, when it asks for the same.
        Raises, recording nothing, RunNotFound, RunNotSuspended, StepNotSuspended, AmbiguousResume or InvalidInput."""
        await self._broker.provision()
        if self._request_id is not None:
            sent = await sent_before(self._broker, self._key.tree, commands.Resume, self._request_id)
            if sent is not None:
                return sent
        try:
            return await self._begin()
        except InvalidInput:
            raise
        except NoriaError as error:
            raise type(error)(f"{error} (run {self._key.run!r} of workflow {self._key.workflow!r})") from error.__cause__

    async def _begin(self) -> int:
        tree = await self._read()
        last, hosted = tree.newest_command, tree.root.status not in RESTING
        try:
            mine = targets(tree, self._wanted)
        except (RunNotSuspended, StepNotSuspended):
            joined = await self._join(tree)
            if joined is None:
                raise
            return joined
        await self._check_context(tree)
        while True:
            value = await self._checked(tree, [t.place for t in mine])
            try:
                return await self._send(mine, value, last, hosted, tree.traceparent or "")
            except Refused:  # somebody was faster, or the commands before aged out
                hosted = True
                came = await self._broker.commands.read(self._key, last)
                last = came[-1].sequence if came else 0
            untouched = True  # by what came: then whoever was not resumed waits as before
            for entry in came:
                command = await self._command_in(entry)
                if not isinstance(command, commands.Resume):
                    untouched = untouched and (command is None or isinstance(command, commands.TimerFired))
                    continue
                taken = set(command.targets)
                if taken == {t.place for t in mine} and command.data == value:
                    return entry.sequence
                left = [t for t in mine if t.place not in taken]
                if not left:
                    raise StepNotSuspended("This workflow step was not suspended any more: another resume came first")
                mine = left
            if not untouched:
                mine = remaining(await self._read(), mine)

    async def _read(self) -> Tree:
        return (await load_newest(self._broker, self._key)).tree

    async def _send(self, mine: list[Target], value: Any, last: int, hosted: bool, of: str) -> int:
        resume = commands.Resume(self._request_id or ids.run_id(), now(), [t.place for t in mine], value, self._context, self._per_step)
        with self._noria.traced("resume", self._key.tree, of=of) as resume.traceparent:
            body = await parcels.pack_command(self._broker, self._key.tree, resume)
            sequence = await self._broker.commands.send(self._key, body, last)
        if hosted:  # else the command's delivery is what wakes it
            self._broker.news.nudge(self._key.tree, "client")
        return sequence

    async def _join(self, tree: Tree) -> int | None:
        """The equal resume that the run is busy with, if that is why nothing waits for this one any more."""
        if not tree.root.started:
            return None
        for entry in reversed(await self._broker.commands.read(self._key, stretch(tree) - 1)):
            rival = await self._command_in(entry)
            if isinstance(rival, commands.Resume) and rival.targets and addresses(tree, self._wanted, rival.targets):
                return entry.sequence if rival.data == await self._checked(tree, rival.targets) else None
        return None

    async def _command_in(self, entry: Stored) -> commands.Command | None:
        """None: it is none, so it changes nothing."""
        body = await parcels.unpack(self._broker, self._key.tree, entry.body)
        try:
            return commands.decode(body)
        except NewerFormat:
            raise
        except NoriaError:
            return None

    async def _checked(self, tree: Tree, places: Sequence[Place]) -> Any:
        """The data as the resumed steps' types make it, defaults included; as it came where those differ, since each
        step parses it for itself. Raises InvalidInput."""
        if self._workflow is None:
            await self._noria.workflows.catalogued.check_resume(self._key.workflow, tree.version, places, self._data)
            return self._data
        values = [step.parse_resume(self._data)[1] for step in self.steps_at(self._workflow, places)]
        return values[0] if len(values) == 1 else self._data

    async def _check_context(self, tree: Tree) -> None:
        """Raises InvalidInput when the request context that the run would have is not as its workflow declares it."""
        if self._context:
            context = {**live(tree.context), **self._context}
            if self._workflow is None:
                await self._noria.workflows.catalogued.check_context(self._key.workflow, tree.version, context)
            elif self._workflow.validate:
                self._workflow.parse_context(context)

    @staticmethod
    def steps_at(workflow: Workflow, places: Iterable[Place]) -> list[Step]:
        """The steps as this client defines them."""
        found, known = dict[str, Step](), Places(workflow, "")
        for path, id in places:
            try:
                unit = known.unit(path)
            except GraphMismatch:  # another version: its worker checks the data
                continue
            step = unit.units.get(id) if isinstance(unit, Workflow) else unit
            if isinstance(step, Step):
                found[f"{'.'.join(split(s)[0] for s in path.split('.'))}.{id}"] = step
        return list(found.values())

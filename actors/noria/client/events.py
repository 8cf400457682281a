"""Stored entries in, RunEvents out."""

from __future__ import annotations

from typing import Any

from noria.actor import parcels
from noria.clock import aware
from noria.contract import commands, envelopes
from noria.contract.envelopes import iso
from noria.contract.events import TOLD_BY_FACT, RunEvent, decode_live
from noria.contract.facts import BlockEnded, Fact, Finished, Rested, Started, StepEnded, StepSuspended, StepWaiting
from noria.contract.values import BAD_DATA, as_list
from noria.errors import BrokerUnavailable, NewerFormat, NoriaError, ValueUnavailable
from noria.machine.fold import fold_command, fold_message
from noria.machine.state import ENDED, Tree, join, parent, segment, split
from noria.machine.view import status, usage
from noria.ports import Broker, RunKey, Stored

STEPS = "workflow-step"


class EventReader:
    """Folds what it reads, so that events can tell what facts leave out. The same entries give every reader the same
    events with the same ids."""

    def __init__(self, broker: Broker, key: RunKey, seed: Tree | None = None, after: int = 0) -> None:
        """`seed`: the run as it was before the first entry read. Entries up to `after` give no events."""
        self._broker, self._key, self._after = broker, key, after
        self._tree = seed or Tree()
        self._travelled = False  # the last command was a time travel
        self._completed: dict[tuple[str, str], int] = {}  # (workflow, foreach) -> items that ended

    @property
    def position(self) -> int:
        """Entries up to here are in the seed."""
        return max(self._tree.cursor, self._tree.root.last)

    @property
    def tree(self) -> Tree:
        """The run as of the last entry read."""
        return self._tree

    @property
    def seen(self) -> int:
        """The last command that the run's host had seen at its last fact."""
        return self._tree.root.in_seen

    async def read(self, entry: Stored) -> list[RunEvent]:
        """The events of one stored entry."""
        try:
            body = await parcels.unpack(self._broker, self._key, entry.body)
            events = self._read(entry, body)
        except ValueUnavailable:
            if entry.kind != "live":
                raise
            return []
        except (NewerFormat, BrokerUnavailable):
            raise
        except (NoriaError, *BAD_DATA):  # unreadable: the log goes on behind it
            return []
        return events if entry.sequence > self._after else []

    def restored(self, tree: Tree) -> list[RunEvent]:
        """Start and, where it rests for good, finish of a run whose facts are gone, made from its record; what comes
        later goes on from there."""
        self._tree = tree
        root, state = tree.root, status(tree)
        started: Any = {"input": root.input, "resource_id": tree.resource_id}
        made = [self._made("workflow-start", root.started, tree.created_at, started)]
        if state in ("running", "waiting"):
            return made
        why = {k: v for k, v in (("error", root.error), ("tripwire", root.tripwire)) if v is not None}
        outcome = {"result": root.output} if state == "success" else why
        finished: Any = {"status": state, "usage": usage(tree), **outcome}
        return [*made, self._made("workflow-finish", root.last, root.ended_at or tree.updated_at, finished)]

    def _made(self, type: str, sequence: int, at: float | None, data: Any) -> RunEvent:
        id = f"{sequence}.{type}"
        return RunEvent(type, self._key.run, self._key.workflow, (), None, None if at is None else aware(at), data, id, sequence)

    def _read(self, entry: Stored, body: bytes) -> list[RunEvent]:
        path = entry.actor.path
        if entry.kind == "live":
            return self._live(entry, body)
        if entry.kind == "in":
            command = commands.decode(body)
            fold_command(self._tree, entry.sequence, path, command)
            self._travelled = isinstance(command, commands.TimeTravel)
            if isinstance(command, commands.Start) and path == "":
                data = {"input": command.input, "resource_id": command.resource_id}
                return [self._event(entry, 0, "workflow-start", None, command.at, data)]
            return []
        message = envelopes.decode(body)
        fold_message(self._tree, entry.sequence, path, message)
        found: list[RunEvent] = []
        for n, fact in enumerate(message.facts):
            if isinstance(fact, (StepEnded, StepSuspended, StepWaiting)):
                found += self._began(entry, n, fact)
            found += self._fact(entry, n, fact)
            if isinstance(fact, (StepEnded, StepSuspended)):
                found += self._progress(entry, n, fact)
        return found

    def _began(self, entry: Stored, n: int, fact: StepEnded | StepSuspended | StepWaiting) -> list[RunEvent]:
        """That a step began, of a fact that came too soon for a live event."""
        if not fact.untold or (self._is_item(entry.actor.path) and fact.leaf):
            return []
        record = self._tree.actor(entry.actor.path).steps[fact.step]
        data: dict[str, Any] = {"input": record.input, "attempt": max(0, fact.attempts - 1), "status": "running"}
        if fact.has_resume:
            data["resume_payload"] = fact.resume_payload
        return [self._event(entry, n, "workflow-step-start", fact.step, fact.started_at, data, suffix="start")]

    def _progress(self, entry: Stored, n: int, fact: StepEnded | StepSuspended) -> list[RunEvent]:
        """How far a foreach is by an item that is a step."""
        status = fact.status if isinstance(fact, StepEnded) else "suspended"
        path = entry.actor.path
        if not (fact.leaf and self._is_item(path) and status in TOLD_BY_FACT):
            return []
        above = self._tree.actor(parent(path))
        key, ended = (above.path, fact.step), isinstance(fact, StepEnded)
        if key in self._completed:
            self._completed[key] += ended
        else:
            siblings = [self._tree.actors.get(p) for p in above.children.get(fact.step, ())]
            self._completed[key] = sum(s is not None and s.status in ENDED for s in siblings)
        items = as_list(above.prev) or []
        data: dict[str, Any] = {"completed": self._completed[key], "total": len(items), "index": split(segment(path))[1], "status": status}
        if isinstance(fact, StepEnded) and status == "success":
            data["output"] = fact.output
        told = entry._replace(actor=entry.actor._replace(path=above.path))
        at = fact.ended_at if isinstance(fact, StepEnded) else fact.suspended_at
        return [self._event(told, n, "workflow-step-progress", fact.step, at, data, suffix="progress")]

    def _live(self, entry: Stored, body: bytes) -> list[RunEvent]:
        id, type, step, data, at = decode_live(body)
        path = entry.actor.path
        of_item = step is None or path.rpartition(".")[2].startswith(f"{step}=")
        if self._is_item(path) and of_item and type in ("workflow-step-start", "workflow-step-waiting"):
            return []
        return [self._event(entry, 0, type, step, at, self._restored(type, path, step, data), id=id)]

    def _restored(self, type: str, path: str, step: str | None, data: Any) -> Any:
        """The data with what was left out because it was large."""
        if type in ("workflow-step-start", "workflow-step-waiting") and "input" not in data:
            return {"input": self._tree.actor(path).prev, **data}
        if type == "workflow-step-progress" and data["status"] == "success" and "output" not in data:
            item = self._tree.actor(path).seg(f"{step}={data['index']}")
            return {**data, "output": self._tree.actor(join(path, item)).output}
        return data

    @staticmethod
    def _is_item(path: str) -> bool:
        return "=" in path.rpartition(".")[2]

    def _fact(self, entry: Stored, n: int, fact: Fact) -> list[RunEvent]:
        path, root = entry.actor.path, entry.actor.path == ""
        match fact:
            case Started() if root and self._travelled:  # of a run that a time travel began: its input is made up by the host
                data = {"input": fact.input, "resource_id": fact.resource_id}
                return [self._event(entry, n, "workflow-start", None, fact.at, data)]
            case StepEnded():
                if self._is_item(path) and fact.leaf:
                    return []
                data = _outcome(fact, fact.output)
                return [self._event(entry, n, "workflow-step-result", fact.step, fact.ended_at, data)]
            case StepSuspended():
                record = self._tree.actor(path).steps[fact.step]
                index = split(path.rpartition(".")[2])[1] if path else None
                data = {"input": record.input, "suspend_payload": fact.payload, "labels": fact.labels, "index": index}
                found = [self._event(entry, n, "workflow-step-suspended", fact.step, fact.suspended_at, data)]
                return [*found, *self._finish(entry, n, "suspended", fact.suspended_at)] if root else found
            case StepWaiting():
                if self._is_item(path) and fact.leaf:
                    return []
                record = self._tree.actor(path).steps[fact.step]
                data = {"input": record.input, "status": "waiting", "until": iso(fact.until)}
                return [self._event(entry, n, "workflow-step-waiting", fact.step, fact.started_at, data)]
            case BlockEnded(kind="foreach"):
                self._completed.pop((path, fact.entry), None)
                record = self._tree.actor(path).steps[fact.entry]
                found = [self._event(entry, n, "workflow-step-result", fact.entry, fact.ended_at, _outcome(fact, record.output))]
                return found if fact.total else [*self._untold(entry, n, fact), *found]
            case Rested() if root and fact.status in ("suspended", "paused"):
                before = [self._event(entry, n, "workflow-paused", None, fact.at, {})] if fact.status == "paused" else []
                return [*before, *self._finish(entry, n, fact.status, fact.at)]
            case Finished() if root:
                before = [self._event(entry, n, "workflow-canceled", None, fact.ended_at, {})] if fact.status == "canceled" else []
                return [*before, *self._finish(entry, n, fact.status, fact.ended_at, fact)]
            case Finished() if not self._is_item(path):
                data = _outcome(fact, self._tree.actor(path).output)
                return [self._event(entry, n, "workflow-step-result", None, fact.ended_at, data)]
            case _:
                return []

    def _untold(self, entry: Stored, n: int, fact: BlockEnded) -> list[RunEvent]:
        """That a foreach began which had nothing to begin: no items, or no list."""
        given = self._tree.actor(entry.actor.path).steps[fact.entry].input
        data: dict[str, Any] = {"input": given, "attempt": 0, "status": "running"}
        return [self._event(entry, n, "workflow-step-start", fact.entry, fact.ended_at, data, suffix="start")]

    def _finish(self, entry: Stored, n: int, status: str, at: float, fact: Finished | None = None) -> list[RunEvent]:
        data: dict[str, Any] = {"status": status, "usage": usage(self._tree)}
        if status == "success":
            data["result"] = self._tree.root.output
        elif fact is not None:
            data.update({k: v for k, v in (("error", fact.error), ("tripwire", fact.tripwire)) if v is not None})
        return [self._event(entry, n, "workflow-finish", None, at, data, suffix="finish")]

    def _event(
        self, entry: Stored, n: int, type: str, step: str | None, at: float, data: Any, *, id: str = "", suffix: str = ""
    ) -> RunEvent:
        segments = tuple(entry.actor.path.split(".")) if entry.actor.path else ()
        units = [split(s)[0] for s in segments]
        if step is not None and step != (units[-1] if units else None):
            units.append(step)
        name = ".".join(units) if step is not None or type.startswith(STEPS) else None
        id = id or f"{entry.sequence}.{n}{'.' + suffix if suffix else ''}"
        return RunEvent(type, self._key.run, self._key.workflow, segments, name, aware(at), data, id, entry.sequence)


def _outcome(fact: StepEnded | BlockEnded | Finished, output: Any) -> dict[str, Any]:
    """What a result event says: the output of a success, else why there is none."""
    data: dict[str, Any] = {"status": fact.status, "ended_at": iso(fact.ended_at)}
    if fact.status == "success":
        return {**data, "output": output}
    return {**data, **{k: v for k, v in (("error", fact.error), ("tripwire", fact.tripwire)) if v is not None}}

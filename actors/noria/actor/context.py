"""What the user's functions see of their run, and what they did to it."""

from __future__ import annotations

import inspect
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn

from noria.actor.around import NOTHING
from noria.actor.notices import Notice
from noria.contract.facts import Writes
from noria.contract.values import as_dict, plain
from noria.errors import NoriaError
from noria.machine.state import Actor, StepRecord, Tree, live, split
from noria.machine.view import USAGE, result, results
from noria.workflow.context import Context, Heard
from noria.workflow.functions import UserFunction
from noria.workflow.steps import Step

if TYPE_CHECKING:
    from noria.actor.activation import Activation


class LiveContext(Context):
    """The context of one call, on top of the activation that makes it."""

    def __init__(
        self, activation: Activation, actor: Actor, step: Step | None = None, *, entry: str | None = None, value: Any = None,
        attempt: int = 0, rounds: int = 0, record: StepRecord | None = None, may_bail: bool = False,
        tree: Tree | None = None, life: int = 0,
    ) -> None:  # fmt: skip
        """`tree`: what it sees of the run, if not what is recorded; `life`: which of its calls it is, where the tree does not say."""
        super().__init__()
        self._activation, self._actor, self._step, self._tree = activation, actor, step, tree or activation.tree
        key = activation.key
        self.run_id, self.workflow_id = key.run, activation.places.workflow_of(actor).id
        self.step_id = step.id if step is not None else entry
        self.path, self.index = _where(actor.path) if actor.path else ((), None)
        self.resource_id, self.attempt, self._rounds = self._tree.resource_id, attempt, rounds
        self.recovered, self.input, self.resume_data = activation.recovered, value, None
        self.suspend_data = step.known_suspend(record.suspend_payload) if step is not None and record is not None else None
        self.client, self.cancelled = activation.client, activation.cancelled
        self._life = life
        self._may_bail = step is not None or may_bail
        self._context: dict[str, Any] | None = None
        self._context_before: dict[str, Any] = {}
        self._usage: dict[str, int] = {}
        self._around = NOTHING
        self.notice: Notice | None = None  # that it began: before anything that it says itself

    @property
    def iteration(self) -> int:
        return self._activation.places.rounds(self._tree, self._actor, str(self.step_id), self._rounds)

    @property
    def init_data(self) -> Any:
        scope = self._activation.places.scope(self._tree, self._actor)
        if scope is not None:
            return plain(scope.input)  # what the caller does to it is not in the log
        return plain(self._around.init if self._actor.init is None else self._actor.init)

    @property
    def idempotency_key(self) -> str:
        life = self._life or self._actor.lives.get(str(self.step_id), 1)
        return ":".join((self.workflow_id, self.run_id, *self.path, str(self.step_id), str(self._rounds), str(life)))

    @property
    def request_context(self) -> MutableMapping[str, Any]:
        if self._context is None:
            self._context_before = live(self._tree.context)
            self._context = {k: plain(v) for k, v in self._context_before.items()}
        return self._context

    def values(self) -> dict[str, Any]:
        """The state as plain JSON."""
        return {**live(self._tree.state), **self._patch}

    @property
    def state(self) -> Any:
        values = plain(self.values())
        if self._step is not None and self._step.state_type is not None:
            return self._step.parse_state(values)
        return self._activation.places.workflow_of(self._actor).parse_state(values)

    def _check_state(self, changes: dict[str, Any]) -> None:
        if not self._activation.places.validates(self._actor.path):
            return
        if self._step is not None and self._step.state:
            self._step.check_state({**self.values(), **changes}, changes)
        else:
            self._activation.places.workflow_of(self._actor).check_state({**self.values(), **changes}, changes)

    def step_result(self, step: Any, default: Any = None) -> Any:
        wanted = step if isinstance(step, str) else step.id
        scope = self._activation.places.scope(self._tree, self._actor)
        if scope is None:
            return plain(self._around.results[wanted]) if wanted in self._around.results else default
        found = result(self._tree, scope, wanted)
        return default if found is None else plain(found[0])

    def results(self) -> dict[str, Any]:
        """What `step_result` knows, by step."""
        scope = self._activation.places.scope(self._tree, self._actor)
        return self._around.results if scope is None else results(self._tree, scope)

    async def look_around(self) -> None:
        """Before the call: a step that was spread reads what it may ask of the workflow around it."""
        self._around = await self._activation.host.surroundings.of(self._activation.key)

    def suspend(self, payload: Any = None, *, label: str | list[str] | None = None, output: Any = None) -> NoReturn:
        if self._step is None:
            raise NoriaError(f"only a step can suspend, and {self.step_id!r} is none")
        super().suspend(payload, label=label, output=output)

    def bail(self, result: Any = None) -> NoReturn:
        if not self._may_bail:
            raise NoriaError(f"only a step or a mapping can bail, and {self.step_id!r} is neither")
        super().bail(result)

    async def write(self, data: Any) -> None:
        output = plain(data)
        self._count(output)
        self._tell_beginning()
        await self._activation.journal.tell("workflow-step-output", self._actor, self.step_id, {"output": output})

    async def _emit(self, type: str, data: Any) -> None:
        self._tell_beginning()
        await self._activation.journal.tell(type, self._actor, self.step_id, data)

    def _tell_beginning(self) -> None:
        if self.notice is not None:
            self.notice.tell()

    def _count(self, chunk: Any) -> None:
        """Sum up the usage that an agent's last chunk tells."""
        ending = as_dict(chunk) or {}
        usage = as_dict(ending.get("usage")) if ending.get("type") == "finish" else None
        for kind, tokens in (usage or {}).items():
            if kind in USAGE and isinstance(tokens, int):
                self._usage[kind] = self._usage.get(kind, 0) + tokens

    def writes(self) -> Writes | None:
        """What the call did to the run beside its output; None when nothing."""
        changed = removed = None
        if self._context is not None:
            before = self._context_before
            now = {k: plain(v) for k, v in self._context.items()}
            changed = {k: v for k, v in now.items() if k not in before or before[k] != v}
            removed = [k for k in before if k not in now]
        if not (self._patch or changed or removed or self._usage):
            return None
        return Writes(self._patch or None, changed, removed, self._usage or None)


def _where(path: str) -> tuple[tuple[str, ...], int | None]:
    """The segments of an actor's path, and the index of the innermost foreach item in it."""
    segments = tuple(path.split("."))
    return segments, next((n for seg in reversed(segments) if (n := split(seg)[1]) is not None), None)


async def call(function: UserFunction, value: Any, context: LiveContext) -> Any:
    """What a condition, a mapping or a callback gives. Sync ones run in the loop: they are expressions, not work."""
    with Heard(context):
        result = function.call(value, context)
        return await result if inspect.isawaitable(result) else result

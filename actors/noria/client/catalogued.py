"""A workflow known by its id only: what the catalogue says of it decides which data is refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from noria.clock import monotonic
from noria.contract.problems import check_schema
from noria.contract.values import as_listing
from noria.errors import InvalidInput, WorkflowNotFound, choices
from noria.limits import CATALOGUE_SECONDS
from noria.machine.resume import Place
from noria.machine.state import split

if TYPE_CHECKING:
    from noria.client.runs import Workflows

Description = dict[str, Any]
_STATE, _CONTEXT = "Invalid state: workflow {!r}", "Request context validation failed: workflow {!r}"


class Catalogued:
    """The descriptions that this client has read, each for CATALOGUE_SECONDS; nothing is refused by one that is older
    than the question."""

    def __init__(self, workflows: Workflows) -> None:
        self._workflows = workflows
        self._read: dict[str, tuple[float, Description]] = {}

    async def known(self, id: str, *, fresh: bool = False) -> Description:
        """What the catalogue says. Raises WorkflowNotFound for a workflow that no worker ever registered."""
        at, found = self._read.get(id, (0.0, None))
        if found is None or fresh or monotonic() - at > CATALOGUE_SECONDS:
            at, found = monotonic(), await self._workflows.get(id)
            if found is None:
                names = [each["id"] for each in await self._workflows.list()]
                raise WorkflowNotFound(f"no workflow {id!r} was ever registered; there are {choices(names)}")
            self._read[id] = at, found
        return found

    async def check_start(self, id: str, data: Any, state: dict[str, Any] | None, context: dict[str, Any]) -> None:
        """Raises InvalidInput for what cannot start the workflow, WorkflowNotFound. `state` None: none was given."""

        def check(known: Description) -> None:
            if known.get("checks_input", True):
                check_schema(f"Invalid input data: workflow {id!r}", known["input"], data)
                if state is not None:
                    check_schema(_STATE.format(id), known.get("state", {}), state)
                check_schema(_CONTEXT.format(id), known.get("context", {}), context)

        await self._check(id, check)

    async def check_context(self, id: str, version: str, context: dict[str, Any]) -> None:
        """Raises InvalidInput for a request context that the workflow cannot go on with. A run of another version is its
        worker's to check."""

        def check(known: Description) -> None:
            if known.get("checks_input", True) and known["version"] == version:
                check_schema(_CONTEXT.format(id), known.get("context", {}), context)

        await self._check(id, check)

    async def check_state(self, id: str, state: dict[str, Any], changed: Collection[str]) -> None:
        """Raises InvalidInput where one of the changed keys is why the state is not as the workflow declares it."""

        def check(known: Description) -> None:
            if known.get("checks_input", True):
                check_schema(_STATE.format(id), known.get("state", {}), state, changed)

        await self._check(id, check)

    async def check_step_input(self, id: str, target: Sequence[str], given: Any) -> None:
        """Raises InvalidInput for an input that the step at `target` cannot take."""

        def check(known: Description) -> None:
            schema = known.get("inputs", {}).get(".".join(target))
            if schema is not None:
                kind, is_foreach = place_in(known["graph"], target)
                what = "Invalid input data: workflow" if kind == "workflow" else "Step input validation failed: step"
                for item in items_of(target[-1], given) if is_foreach else [given]:
                    check_schema(f"{what} {target[-1]!r}", schema, item)

        await self._check(id, check)

    async def check_resume(self, id: str, version: str, places: Iterable[Place], data: Any) -> None:
        """Raises InvalidInput for data that one of the suspended steps cannot take. A run of another version is its
        worker's to check."""
        wanted = {name: step for path, step in places for name in _names(path, step)}

        def check(known: Description) -> None:
            schemas: Description = known.get("resume", {}) if known["version"] == version else {}
            for name, step in wanted.items():
                check_schema(f"Invalid resume data: step {step!r}", schemas.get(name, {}), data)

        await self._check(id, check)

    async def _check(self, id: str, check: Callable[[Description], None]) -> None:
        try:
            check(await self.known(id))
        except InvalidInput:  # it may have been registered anew
            check(await self.known(id, fresh=True))


def place_in(graph: Description, target: Sequence[str]) -> tuple[str, bool]:
    """Of the unit at `target`: "step" or "workflow", and whether it is a foreach's."""
    kind = ""
    for name in target:
        unit, kind = units_of(graph)[name]
        graph = unit
    return str(graph["kind"]), kind == "foreach"


def units_of(graph: Description) -> dict[str, tuple[Description, str]]:
    """The steps, nested workflows and what else stands in a graph's description, by id, with the kind of their entry."""
    found: dict[str, tuple[Description, str]] = {}
    for entry in graph.get("entries", ()):
        units = [entry["unit"]] if "unit" in entry else entry.get("units") or [arm["unit"] for arm in entry.get("arms", ())]
        found.update({unit["id"]: (unit, entry["kind"]) for unit in units or [entry]})
    return found


def items_of(step: str, given: Any) -> list[Any]:
    """The items that a foreach is to begin with. Raises InvalidInput for what is no list."""
    if (items := as_listing(given)) is None:
        raise InvalidInput(f"Invalid input data: step {step!r} is a foreach and takes a list, not {type(given).__name__}")
    return items


def _names(path: str, step: str) -> tuple[str, str]:
    """What the catalogue calls a place: the step below the workflow at `path`, or the foreach step whose item is there."""
    above = ".".join(split(segment)[0] for segment in path.split("."))
    return f"{above}.{step}".lstrip("."), above

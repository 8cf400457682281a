"""A workflow known by its id only: what the catalogue says of it decides which data is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from noria.clock import monotonic
from noria.contract.problems import check_schema
from noria.errors import InvalidInput, WorkflowNotFound, choices
from noria.limits import CATALOGUE_SECONDS
from noria.machine.resume import Place
from noria.machine.state import split

if TYPE_CHECKING:
    from noria.client.runs import Workflows

Description = dict[str, Any]


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

    async def check_input(self, id: str, data: Any) -> None:
        """Raises InvalidInput for data that cannot start the workflow, WorkflowNotFound."""

        def check(known: Description) -> None:
            if known.get("checks_input", True):
                check_schema(f"Invalid input data: workflow {id!r}", known["input"], data)

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


def _names(path: str, step: str) -> tuple[str, str]:
    """What the catalogue calls a place: the step below the workflow at `path`, or the foreach step whose item is there."""
    above = ".".join(split(segment)[0] for segment in path.split("."))
    return f"{above}.{step}".lstrip("."), above

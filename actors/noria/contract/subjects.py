"""Every subject, stream and bucket of a namespace. The path of an actor is dotted; its own subject ends in `_`."""

from __future__ import annotations

from noria.errors import DefinitionError
from noria.ids import NAMESPACE
from noria.ports import ActorKey, RunKey

END = "_"


class Subjects:
    """The names of one namespace."""

    def __init__(self, namespace: str) -> None:
        if not NAMESPACE.fullmatch(namespace):
            raise DefinitionError(f"namespace {namespace!r}: use small letters, digits and '-', a letter first")
        self.ns = namespace
        upper = namespace.upper()
        self.runs, self.triggers, self.dead, self.blobs = f"{upper}_RUNS", f"{upper}_TRIGGERS", f"{upper}_DEAD", f"{upper}_BLOBS"
        self.records, self.catalogue = f"{namespace}-runs", f"{namespace}-workflows"

    def of(self, kind: str, actor: ActorKey) -> str:
        """`kind`: in, run, live or timer."""
        path = f"{actor.path}.{END}" if actor.path else END
        return f"{self.ns}.{kind}.{actor.workflow}.{actor.run}.{path}"

    def below(self, kind: str, actor: ActorKey) -> str:
        """A filter for an actor and everything under it."""
        return f"{self.ns}.{kind}.{actor.workflow}.{actor.run}.{actor.path + '.' if actor.path else ''}>"

    def parse(self, subject: str) -> tuple[str, ActorKey]:
        """(kind, actor) of a subject of the RUNS stream."""
        _, kind, workflow, run, path = subject.split(".", 4)
        return kind, ActorKey(workflow, run, path[:-2] if path.endswith(f".{END}") else "" if path == END else path)

    def commands_of(self, workflow: str) -> str:
        return f"{self.ns}.in.{workflow}.>"

    def worker(self, workflow: str) -> str:
        """Where the workers of a workflow say that they are there."""
        return f"{self.ns}.worker.{workflow}"

    def host(self, id: str) -> str:
        """Where a host answers, or everybody."""
        return f"{self.ns}.host.{id}"

    def trigger(self, workflow: str) -> str:
        return f"{self.ns}.trigger.{workflow}"

    def cron(self, workflow: str, schedule: str) -> str:
        """The definition of a schedule, which sends its ticks to the workflow's trigger."""
        return f"{self.ns}.cron.{workflow}.{schedule}"

    def past(self, workflow: str, schedule: str) -> str:
        """What became of a schedule's ticks."""
        return f"$KV.{self.catalogue}.{workflow}.{schedule}"

    def api(self, verb: str) -> str:
        return f"{self.ns}.api.{verb}"

    def step(self, workflow: str, step: str) -> str:
        """Where the handlers of a step are called; `.parcel` behind it: where calls go that are sealed or lie in the blobs."""
        return f"{self.ns}.step.{workflow}.{step}"

    def cancel(self, workflow: str, step: str, call: str = "*") -> str:
        """Where the handlers of a step hear that a call is no longer wanted."""
        return f"{self.ns}.uncall.{workflow}.{step}.{call}"

    def dead_letter(self, kind: str, workflow: str) -> str:
        return f"{self.ns}.dead.{kind}.{workflow}"

    def rest(self, run: RunKey, status: str) -> str:
        return f"{self.ns}.rest.{run.workflow}.{run.run}.{status}"

    def nudge(self, workflow: str, run: str) -> str:
        return f"{self.ns}.nudge.{workflow}.{run}"

    def record(self, run: RunKey) -> str:
        return f"$KV.{self.records}.{run.workflow}.{run.run}"

    def blob(self, run: RunKey, name: str = ">") -> str:
        return f"{self.ns}.blob.{run.workflow}.{run.run}.{name}"

    @staticmethod
    def consumer(workflow: str) -> str:
        return f"w-{workflow}"

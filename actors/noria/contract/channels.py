"""Every subject of a namespace in one table: where it lives, what travels on it, who may send and who may listen.

Permissions (`noria infra export`) and the AsyncAPI document (`noria schemas export`) are made from it.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, TypeAlias, get_args

from noria.contract.subjects import Subjects
from noria.contract.wire import FACTS, LIVE

Role: TypeAlias = Literal["publisher", "observer", "operator", "worker", "admin"]
Store: TypeAlias = Literal["runs", "triggers", "dead", "blobs", "records", "catalogue"]
ROLES: tuple[Role, ...] = get_args(Role)


class Channel(NamedTuple):
    """A kind of subject. `address` has {ns} and parameters; `{path}` and `{name}` at the end stand for several tokens.
    `messages` are names of schemas (`export.schemas`), or a folder of them; without any the body is opaque."""

    name: str
    address: str
    store: Store | None  # the stream or bucket; None: core NATS
    senders: tuple[Role, ...]
    listeners: tuple[Role, ...]  # by plain subscription
    messages: tuple[str, ...]
    meaning: str

    def filter(self, subjects: Subjects) -> str:
        """All subjects of the channel, as a subscription names them."""
        return re.sub(r"\{.*", ">", self.address_in(subjects))

    def address_in(self, subjects: Subjects) -> str:
        """The address with the namespace's own names filled in."""
        return self.address.format_map(_Names(subjects))

    @property
    def parameters(self) -> list[str]:
        return [p for p in re.findall(r"\{(\w+)\}", self.address) if p not in ("ns", "records", "catalogue")]


class _Names(dict[str, str]):
    def __init__(self, subjects: Subjects) -> None:
        super().__init__(ns=subjects.ns, records=subjects.records, catalogue=subjects.catalogue)

    def __missing__(self, key: str) -> str:
        return "{" + key + "}"


W: tuple[Role, ...] = ("worker",)
FACT_EVENTS = (*(f"events/{type}" for type in FACTS), "events/batch", "events/sealed", "records/slip")
LIVE_EVENTS = (*(f"events/{type}" for type in LIVE), "events/custom", "events/sealed", "records/slip")
CHANNELS = (
    Channel("commands", "{ns}.in.{workflow}.{run}.{path}", "runs", W, (),
            ("commands/", "records/slip"), "what is asked of an actor"),
    Channel("facts", "{ns}.run.{workflow}.{run}.{path}", "runs", W, ("observer",), FACT_EVENTS, "an actor's log"),
    Channel("live", "{ns}.live.{workflow}.{run}.{path}", "runs", W, ("observer",), LIVE_EVENTS, "progress, kept for an hour"),
    Channel("timers", "{ns}.timer.{workflow}.{run}.{path}", "runs", W, (), ("commands/timer",), "commands that the server sends when they are due"),
    Channel("triggers", "{ns}.trigger.{workflow}", "triggers", ("publisher", "worker"), (),
            ("cloudevent", "records/schedule", "records/sealed-schedule"), "CloudEvents that start runs"),
    Channel("crons", "{ns}.cron.{workflow}.{id}", "triggers", W, (), ("records/schedule", "records/sealed-schedule"), "schedules that send triggers"),
    Channel("dead-letters", "{ns}.dead.{kind}.{workflow}", "dead", W, (), (), "what could not be processed, and why"),
    Channel("blobs", "{ns}.blob.{workflow}.{run}.{name}", "blobs", W, (), (), "chunks of values above the inline limit"),
    Channel("records", "$KV.{records}.{workflow}.{run}", "records", W, (),
            ("records/record", "records/sealed", "records/slip"), "a run's state as of a sequence"),
    Channel("catalogue", "$KV.{catalogue}.{workflow}", "catalogue", W, (),
            ("records/workflow", "records/schedule-past", "records/schedule-declarations"), "graph and schemas of a workflow"),
    Channel("rests", "{ns}.rest.{workflow}.{run}.{status}", None, W, ("observer", "worker"),
            ("news/rest", "news/sealed"), "news that a run rests or ended"),
    Channel("nudges", "{ns}.nudge.{workflow}.{run}", None, W, W, (), "hosts of this run: look at your commands"),
    Channel("workers", "{ns}.worker.{workflow}", None, W, W, (), "who hosts the workflow"),
    Channel("hosts", "{ns}.host.{id}", None, W, W, (), "whether a host is there"),
    Channel("steps", "{ns}.step.{workflow}.{step}", None, W, W, ("calls/",),
            "step handlers; `.parcel` behind it: those that understand calls which are sealed or lie in the blobs"),
    Channel("cancels", "{ns}.uncall.{workflow}.{step}.{call}", None, W, W, (), "a step call is no longer wanted"),
    Channel("api", "{ns}.api.{verb}", None, ("operator", "worker"), W, ("api/",), "the control API"),
)  # fmt: skip

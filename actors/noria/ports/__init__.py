"""What the runtime needs from the world: protocols with their laws. The door of the package: names only.

The broker layer implements them on NATS; the simulated broker in memory. Bodies are opaque bytes here.
"""

from noria.ports.broker import Broker, Catalogue, Codec, Operations
from noria.ports.calls import EVERYBODY, Answer, Calls, Endpoint, Nobody, Presence, Services, Talk
from noria.ports.common import ActorKey, Closed, Known, Late, Receiver, Refused, RunKey, Stop, Stored, StoredRecord, deadline
from noria.ports.observing import Observer, Stretch
from noria.ports.outside import Letter, Schedules, StoredSchedule, Tick, Trigger, Triggers
from noria.ports.runs import Blobs, Commands, Delivery, Log, News, Records, Timers, Unacknowledged

__all__ = [
    "EVERYBODY",
    "ActorKey",
    "Answer",
    "Blobs",
    "Broker",
    "Calls",
    "Catalogue",
    "Closed",
    "Codec",
    "Commands",
    "Delivery",
    "Endpoint",
    "Known",
    "Late",
    "Letter",
    "Log",
    "News",
    "Nobody",
    "Observer",
    "Operations",
    "Presence",
    "Receiver",
    "Records",
    "Refused",
    "RunKey",
    "Schedules",
    "Services",
    "Stop",
    "Stored",
    "StoredRecord",
    "StoredSchedule",
    "Stretch",
    "Talk",
    "Tick",
    "Timers",
    "Trigger",
    "Triggers",
    "Unacknowledged",
    "deadline",
]  # fmt: skip

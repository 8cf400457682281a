"""What happens in a namespace, a line each, for people."""

from __future__ import annotations

from rich.markup import escape

from noria.cli.output import clock, coloured, err, short
from noria.client.events import EventReader
from noria.client.noria import Noria
from noria.clock import now
from noria.contract.events import RunEvent
from noria.contract.values import as_dict
from noria.ports import RunKey

EVERY_RUN = RunKey("*", "*")
SHOWN = ("output", "result", "error", "suspend_payload", "until", "data", "input")  # of what an event tells, the first that it has
ENDINGS = ("success", "failed", "canceled", "tripwire")


async def print_events(noria: Noria) -> None:
    """Print the events of all runs from now on, until cancelled. What was before is read, so that later events are whole."""
    await noria.broker.provision()
    began, readers = now(), dict[RunKey, EventReader]()
    async for entry in noria.broker.log.follow(EVERY_RUN):
        key = entry.actor.tree
        reader = readers.setdefault(key, EventReader(noria.broker, key))
        for event in await reader.read(entry):
            if entry.time >= began:
                err.print(_line(event), highlight=False, soft_wrap=True)
            if event.type == "workflow-finish" and event.data["status"] in ENDINGS:
                readers.pop(key, None)


def _line(event: RunEvent) -> str:
    what = event.type.removeprefix("workflow-").removeprefix("step-")
    data = as_dict(event.data) or {"data": event.data}
    status = coloured(str(data["status"])) if "status" in data else ""
    value = next((data[name] for name in SHOWN if data.get(name) is not None), "")
    who = f"{escape(event.workflow_id)}/{escape(event.run_id[:12])} [bold]{escape(event.step or 'run')}[/]"
    return f"[dim]{clock(event.time)}[/] {who} {what} {status} {short(value)}"

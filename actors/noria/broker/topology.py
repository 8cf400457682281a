"""Streams and buckets: what must be there, created when missing, never changed in passing."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from noria.broker.connection import Connection
from noria.broker.reading import epoch
from noria.clock import monotonic
from noria.contract.subjects import Subjects
from noria.contract.values import BAD_DATA, loads
from noria.errors import NoriaError, NotPermitted
from noria.limits import MAX_AGE_SECONDS, TOMBSTONE_SECONDS

log = logging.getLogger("noria.broker")
ALREADY = (10058, 10148)  # in use with another configuration; exists
SECOND = 1_000_000_000
SYSTEM_SECONDS = 0.5


def streams(subjects: Subjects, replicas: int = 1) -> list[dict[str, Any]]:
    """The wanted configuration of every stream, buckets included."""
    ns, base = subjects.ns, {"storage": "file", "num_replicas": replicas, "allow_direct": True}
    bucket = {**base, "max_msgs_per_subject": 1, "allow_rollup_hdrs": True, "deny_delete": True, "discard": "new", "allow_msg_ttl": True}
    kept = {"subject_delete_marker_ttl": TOMBSTONE_SECONDS * SECOND}  # the id of a run whose record vanished stays taken
    return [
        {
            **base, "name": subjects.runs, "subjects": [f"{ns}.{kind}.>" for kind in ("in", "run", "live", "timer")],
            "retention": "limits", "max_age": MAX_AGE_SECONDS * SECOND, "allow_msg_schedules": True, "allow_msg_ttl": True,
        },
        {
            **base, "name": subjects.triggers, "subjects": [f"{ns}.trigger.>", f"{ns}.cron.>"], "retention": "workqueue",
            "allow_msg_schedules": True, "allow_msg_ttl": True,
        },
        {**base, "name": subjects.dead, "subjects": [f"{ns}.dead.>"], "retention": "limits", "max_age": MAX_AGE_SECONDS * SECOND},
        {**base, "name": subjects.blobs, "subjects": [f"{ns}.blob.>"], "retention": "limits", "max_age": 0},
        {**bucket, **kept, "name": f"KV_{subjects.records}", "subjects": [f"$KV.{subjects.records}.>"]},
        {**bucket, "name": f"KV_{subjects.catalogue}", "subjects": [f"$KV.{subjects.catalogue}.>"]},
    ]  # fmt: skip


class Topology:
    """ports.Operations of one namespace; provisions it, once per process."""

    def __init__(self, connection: Connection, subjects: Subjects, replicas: int = 1) -> None:
        self.connection, self.subjects, self.replicas = connection, subjects, replicas
        self._ready = False

    async def provision(self) -> None:
        """Create what is missing. Idempotent, also among processes."""
        if self._ready:
            return
        await asyncio.gather(*(self._provide(wanted) for wanted in streams(self.subjects, self.replicas)))
        self._ready = True
        if self.connection.ahead:
            log.warning("%s", self._clock())

    def _learn_time(self, answer: dict[str, Any]) -> None:
        if "ts" in answer:
            self.connection.server_time = epoch(answer["ts"]) - monotonic()

    def _clock(self) -> str:
        ahead = self.connection.ahead
        which = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'}"
        return f"the clock of this host is {which} that of {self.connection.shown}: timers go by the latter, records do not; synchronise them"

    async def _provide(self, wanted: dict[str, Any]) -> None:
        try:
            info = await self.connection.api(f"STREAM.INFO.{wanted['name']}")
        except NotPermitted:  # who may not even look at it does not make it
            return
        self._learn_time(info)
        self.connection.replicated |= info.get("config", wanted)["num_replicas"] > 1
        if "error" in info:
            answer = await self.connection.api(f"STREAM.CREATE.{wanted['name']}", wanted)
            self._learn_time(answer)
            error = answer.get("error")
            if error is not None and error.get("err_code") not in ALREADY:
                raise NoriaError(f"cannot create the stream {wanted['name']}: {error.get('description')}")

    async def plan(self) -> list[str]:
        lines: list[str] = []
        for wanted in streams(self.subjects, self.replicas):
            info = await self.connection.api(f"STREAM.INFO.{wanted['name']}")
            if "error" in info:
                lines.append(f"create {wanted['name']}")
            else:
                lines += [f"change {wanted['name']}: {k} {info['config'].get(k)!r} -> {v!r}" for k, v in _differences(info["config"], wanted)]
        return lines

    async def apply(self) -> list[str]:
        lines = await self.plan()
        for wanted in streams(self.subjects, self.replicas):
            info = await self.connection.api(f"STREAM.INFO.{wanted['name']}")
            if "error" in info:
                answer = await self.connection.api(f"STREAM.CREATE.{wanted['name']}", wanted)
            elif _differences(info["config"], wanted):
                answer = await self.connection.api(f"STREAM.UPDATE.{wanted['name']}", {**info["config"], **wanted})
            else:
                continue
            if "error" in answer:
                raise NoriaError(f"stream {wanted['name']}: {answer['error'].get('description')}")
        return lines

    async def check(self) -> list[tuple[str, bool, str]]:
        found = [("server", True, self.connection.server)]
        account = await self.connection.api("INFO")
        enabled = "error" not in account
        found.append(("jetstream", enabled, _room(account) if enabled else "not enabled: start the server with -js"))
        for wanted in streams(self.subjects, self.replicas) if enabled else ():
            info = await self.connection.api(f"STREAM.INFO.{wanted['name']}")
            found.append((str(wanted["name"]), *_condition(info)))
        if self.connection.ahead:
            found.append(("clock", False, self._clock()))
        if enabled:
            found.append(("durability", True, await self._durability()))
        return found

    async def _durability(self) -> str:
        """What the server says of its syncs: only its system account, or who imports that service, may ask."""
        unknown = "sync_interval is not visible to this user (2 minutes unless it was set): docs/durability.md"
        try:
            answer = await self.connection.request("$SYS.REQ.SERVER.PING.JSZ", b'{"config":true}', timeout=SYSTEM_SECONDS)
            config = loads(answer.data)["data"]["config"]
        except (NoriaError, *BAD_DATA):
            return unknown
        if config.get("sync_always"):
            return "sync_interval always: every acknowledged append is on disk"
        seconds = config.get("sync_interval", 0) / SECOND
        return f"sync_interval {seconds:g} s: a power loss may take what came since, unless a replica has it (docs/durability.md)"


def _room(account: dict[str, Any]) -> str:
    limit = account.get("limits", {}).get("max_storage", -1)
    return f"enabled, {account.get('storage', 0)} of {limit} bytes of storage used" if limit > 0 else "enabled"


def _condition(info: dict[str, Any]) -> tuple[bool, str]:
    """Of a stream: whether it is there and loses nothing; in words."""
    if "error" in info:
        return False, "missing: noria infra apply"
    config, state = info["config"], info["state"]
    words, limit = f"{state['messages']} messages, replicas {config['num_replicas']}", config.get("max_bytes", -1)
    if limit <= 0:
        return True, words
    words += f", {state['bytes']} of max_bytes {limit} used"
    if config["discard"] == "new":
        return True, words
    remedy = f"nats stream edit {config['name']} --max-bytes=-1"
    return False, f"{words}: once it is full the oldest messages are dropped without a word, of open runs too: {remedy}"


def _differences(have: dict[str, Any], want: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(k, v) for k, v in want.items() if have.get(k) != v and not (v in (0, False) and not have.get(k))]

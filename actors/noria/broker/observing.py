"""Following a run without a consumer, for users who may only read: plain subscriptions say when to read again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from noria.broker.connection import Connection
from noria.broker.reading import read
from noria.broker.wire import Incoming
from noria.contract.subjects import Subjects
from noria.ports import ActorKey, RunKey, Stored

HEARD = ("run", "live")
KINDS = ("in", *HEARD)
AGAIN_SECONDS, LOOK_SECONDS = 0.05, 2.0


async def observe(connection: Connection, subjects: Subjects, run: RunKey, after: int) -> AsyncGenerator[Stored, None]:
    """What is stored behind `after`, in order, each once, for ever. Read from the stream: a subscription also sees
    messages that JetStream refused, and may miss some."""
    woken, key = asyncio.Event(), ActorKey(*run)

    def heard(_: Incoming) -> None:
        woken.set()

    stops = [await connection.subscribe(subjects.below(kind, key), heard) for kind in HEARD]
    try:
        while True:
            was_woken = woken.is_set()
            woken.clear()
            # all kinds by one read: of several, a later one could see behind what an earlier one missed
            found = await read(connection, subjects.runs, subjects.below("*", key), after)
            for message in found:
                after = message.sequence
                kind, actor = subjects.parse(message.subject)
                if kind in KINDS:
                    yield Stored(after, kind, actor, message.body, message.time)
            if not found:
                try:
                    # a subscription may hear of a message before it is stored
                    async with asyncio.timeout(AGAIN_SECONDS if was_woken else LOOK_SECONDS):
                        await woken.wait()
                except TimeoutError:
                    pass
    finally:
        for stop in stops:
            await stop()

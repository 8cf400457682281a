"""Requests and replies: to step handlers, to the control API, among hosts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from noria.ports.common import RunKey, Stop


class Nobody(Exception):
    """No one serves this subject; known at once."""


class Answer(NamedTuple):
    """What a request was answered; `error` in words and its code when it was refused."""

    body: bytes
    error: str | None = None
    code: str | None = None


class Endpoint(NamedTuple):
    """A place to send requests to. The handler must not raise; cancelled, it lets the caller ask again."""

    name: str
    subject: str
    handler: Callable[[bytes], Awaitable[Answer]]
    metadata: Mapping[str, str]


class Talk(Protocol):
    """An address of our own for one conversation."""

    address: str

    def send(self, subject: str, body: bytes) -> None: ...
    def close(self) -> None: ...


class Calls(Protocol):
    """Requests, at most once. Laws: `ask` gives the one answer, Nobody at once when no one serves the subject, or
    BrokerUnavailable when none came in time; `open` hears every message to its address in order, None for Nobody.
    `unseal` opens what `seal` made, in the same context, and what is not sealed to itself; `seal` changes nothing unless
    `seals`, and leaves the fields `shown` of a JSON object readable."""

    seals: bool

    @property
    def max_bytes(self) -> int:
        """Larger bodies cannot be sent."""
        ...

    async def ask(self, subject: str, body: bytes, timeout: float) -> Answer: ...
    def open(self, on_message: Callable[[Answer | None], None]) -> Talk: ...
    def tell(self, subject: str, body: bytes) -> None: ...
    async def listen(self, subject: str, callback: Callable[[str, bytes], None]) -> Stop: ...
    def seal(self, context: RunKey, body: bytes, shown: tuple[str, ...]) -> bytes: ...
    def unseal(self, context: RunKey, body: bytes) -> bytes: ...


class Services(Protocol):
    """Laws: each request goes to one of those who serve its subject; many are handled at once. `serve` gives how to stop:
    what runs gets so many seconds, then its callers are told to ask again."""

    async def serve(
        self, name: str, description: str, metadata: Mapping[str, str], endpoints: Sequence[Endpoint]
    ) -> Callable[[float], Awaitable[None]]: ...


EVERYBODY = "all"  # answers under this name too: who comes new does not know the others' ids


class Presence(Protocol):
    """Who is there, asked and answered without storing anything.

    Laws: `ask` gives None if and only if nobody answers under this id any more, and at once; it raises
    BrokerUnavailable when somebody is there and silent. `gather` asks all hosts and gives what came within `seconds`,
    sooner when `enough` have answered; `tell` lets them know and wants no answer. `on_question` gets the body of a
    question or of what was told, and gives the answer.
    """

    async def answer(self, host: str, on_question: Callable[[bytes], bytes]) -> Stop: ...
    async def ask(self, host: str) -> bytes | None: ...
    async def gather(self, body: bytes, seconds: float, enough: int) -> list[bytes]: ...
    def tell(self, body: bytes) -> None: ...

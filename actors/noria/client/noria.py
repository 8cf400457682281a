"""The client: a connection to a namespace, and everything that can be asked of it."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any

from noria import telemetry
from noria.broker import connect_broker
from noria.client.dead import Dead
from noria.client.operations import Infra, check_up
from noria.client.run import Run
from noria.client.runs import Runs, Workflows
from noria.client.schedules import Schedules
from noria.client.waiting import Waiting
from noria.codec.sealed import seal
from noria.contract.results import RunResult
from noria.errors import InvalidInput
from noria.ports import Broker, Codec, Observer, RunKey
from noria.worker import Worker
from noria.workflow.builder import Workflow

if TYPE_CHECKING:
    from noria.embedded import EmbeddedServer


class Noria:
    """A namespace on a broker. Made by `Noria.embedded()`, `Noria.connect()` or `noria.testing.simulated()`.

    `url` and `namespace` say where; `runs`, `workflows`, `schedules`, `dead` and `infra` are for looking and operating."""

    def __init__(self, broker: Broker) -> None:
        self.broker, self.url, self.namespace = broker, broker.url, broker.namespace
        self.registry: dict[str, Workflow] = {}
        self.waiting = Waiting(broker)
        self.runs, self.workflows, self.infra = Runs(self), Workflows(self), Infra(broker)
        self.dead, self.schedules = Dead(self), Schedules(self)
        self._observer: Observer | None = None
        self.workers: set[Worker] = set()  # of this client, while they receive

    @property
    def observer(self) -> Observer | None:
        """Who watches: one of your own, else OpenTelemetry as soon as this process has a provider for it."""
        if self._observer is None:
            self._observer = telemetry.installed()
        return self._observer

    @observer.setter
    def observer(self, observer: Observer | None) -> None:
        self._observer = observer

    def traced(self, verb: str, run: RunKey, traceparent: str | None = None, of: str | None = None) -> AbstractContextManager[str | None]:
        """Around the sending of a command: gives the traceparent that it carries. `of`: see Observer.sends."""
        observer = self.observer
        return nullcontext(traceparent) if observer is None else observer.sends(verb, run, traceparent, of)

    @staticmethod
    def embedded(
        store_dir: str | os.PathLike[str] | None = None, *, namespace: str = "noria", port: int | None = None
    ) -> Opening:
        """A private nats-server for the length of the context, on a temporary store or in `store_dir`; `port`: a free one without.
        Raises NoriaError when it does not come up."""
        return Opening(namespace, embedded=True, store_dir=store_dir, port=port)

    @staticmethod
    def connect(
        url: str | None = None, *, namespace: str = "noria", creds: str | None = None, tls: Any = None, via: str = "streams",
        codec: Codec | None = None, **nats_options: Any,
    ) -> Opening:  # fmt: skip
        """A real server: `url` (several with commas), else NATS_URL, else the nats CLI context. Raises BrokerUnavailable when none answers.
        `via="api"`: every verb through the control API of the workers, without permissions on streams. `codec`: what
        seals values at rest (`noria.codec.AesGcm`); all who touch the namespace's streams need it."""
        if via not in ("streams", "api"):
            raise InvalidInput(f"via={via!r}: it may be 'streams' or 'api'")
        return Opening(namespace, url=url, options={"creds": creds, "tls": tls, **nats_options}, via_api=via == "api", codec=codec)

    def worker(
        self, *workflows: Workflow, concurrency: int = 100, steps: bool = True, runs: bool = True, lease: float = 30.0,
        grace: float = 10.0,
    ) -> Worker:  # fmt: skip
        """Host runs of these workflows in this process while the context is entered, at most `concurrency` at once. `steps=False` calls
        step handlers elsewhere, `runs=False` serves them only. `lease`, seconds: how long after its host's death a run is taken over at
        the latest; `grace`, seconds: what running steps get when the context is left. Raises DefinitionError."""
        return Worker(self, workflows, concurrency=concurrency, steps=steps, runs=runs, lease=lease, grace=grace)

    async def serve(self, *workflows: Workflow, **options: Any) -> None:
        """Host until SIGINT or SIGTERM, or until cancelled; then drain."""
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, stop.set)
            except (NotImplementedError, RuntimeError, ValueError):
                break
        async with self.worker(*workflows, **options):
            await stop.wait()

    def create_run(self, workflow: Workflow | str, run_id: str | None = None, resource_id: str | None = None) -> Run:
        """A handle of a run, new or not. No I/O."""
        return Run(self, workflow, run_id, resource_id)

    async def run(
        self, workflow: Workflow | str, input: Any = None, *, run_id: str | None = None, resource_id: str | None = None,
        **options: Any,
    ) -> RunResult:  # fmt: skip
        """Create, start, and wait for the result; `options` are those of `Run.start`. Raises WorkflowNotFound for an id that no worker
        ever registered, and what `Run.start` raises."""
        return await self.create_run(workflow, run_id, resource_id).start(input, **options)

    async def doctor(self) -> list[tuple[str, bool, str]]:
        """What works and what does not: (name, ok, detail)."""
        return await check_up(self)

    async def close(self) -> None:
        """Disconnect; leaving the context does."""
        await self.waiting.close()
        await self.broker.close()


class Opening:
    """Opens a Noria for the length of an `async with`."""

    def __init__(
        self, namespace: str, *, url: str | None = None, options: dict[str, Any] | None = None, embedded: bool = False,
        store_dir: str | os.PathLike[str] | None = None, port: int | None = None, via_api: bool = False, codec: Codec | None = None,
    ) -> None:  # fmt: skip
        self._via_api, self._codec = via_api, codec
        self._namespace, self._url, self._options = namespace, url, options or {}
        self._embedded, self._store_dir, self._port = embedded, store_dir, port
        self._server: EmbeddedServer | None = None

    async def __aenter__(self) -> Noria:
        if self._embedded:
            from noria.embedded import start_server  # who connects to a server needs no process of one

            self._server = await start_server(self._store_dir, self._port)
            self._url = self._server.url
        try:
            broker: Broker = await connect_broker(self._url, self._namespace, **self._options)
            if self._codec is not None:
                seal(broker, self._codec)
            self._noria = _kind(self._via_api)(broker)
        except BaseException:
            await self._stop()
            raise
        return self._noria

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._noria.close()
        finally:
            await self._stop()

    async def _stop(self) -> None:
        if self._server is not None:
            await self._server.stop()


def _kind(via_api: bool) -> type[Noria]:
    from noria.client.remote import RemoteNoria  # it is a Noria itself

    return RemoteNoria if via_api else Noria

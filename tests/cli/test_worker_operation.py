"""`noria worker` as it runs for real: health over HTTP, telemetry by OTLP."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from noria import Noria
from noria.cli.health import why_not_ready
from noria.embedded import free_port, start_server

FLOW = """
from noria import Context, Workflow, step
@step
async def double(x: int, ctx: Context) -> int:
    ctx.log.warning("doubling %s", x)
    return 2 * x
doubling = Workflow("doubling").then(double).commit()
"""


async def get(port: int, path: str) -> tuple[int, dict[str, Any]]:
    def ask() -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, {}

    return await asyncio.to_thread(ask)


async def until(port: int, path: str, status: int) -> dict[str, Any]:
    for _ in range(200):
        found, body = await get(port, path)
        if found == status:
            return body
        await asyncio.sleep(0.1)
    raise AssertionError((found, body))


@pytest.mark.timeout(90)
async def test_health_and_telemetry_of_a_worker(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(FLOW)
    spans, metrics, logs = list[Any](), list[Any](), list[Any]()

    async def traces(request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest()
        message.ParseFromString(await body_of(request))
        spans.extend((s, r.resource) for r in message.resource_spans for scope in r.scope_spans for s in scope.spans)
        return web.Response()

    async def measures(request: web.Request) -> web.Response:
        message = ExportMetricsServiceRequest()
        message.ParseFromString(await body_of(request))
        metrics.extend(m.name for r in message.resource_metrics for scope in r.scope_metrics for m in scope.metrics)
        return web.Response()

    async def lines(request: web.Request) -> web.Response:
        message = ExportLogsServiceRequest()
        message.ParseFromString(await body_of(request))
        logs.extend(line for r in message.resource_logs for scope in r.scope_logs for line in scope.log_records)
        return web.Response()

    async def body_of(request: web.Request) -> bytes:
        data = await request.read()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data

    site = web.Application()
    site.add_routes([web.post("/v1/traces", traces), web.post("/v1/metrics", measures), web.post("/v1/logs", lines)])
    collector, port, health = web.AppRunner(site), free_port(), free_port()
    await collector.setup()
    await web.TCPSite(collector, "127.0.0.1", port).start()
    server = await start_server(tmp_path / "store")
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_SERVICE_NAME": "my-workers"}
    command = [sys.executable, "-c", "from noria.cli.main import main; main()", "worker", f"{tmp_path}/flow.py:doubling"]
    worker = await asyncio.create_subprocess_exec(*command, "--health-port", str(health), "-s", server.url, env=environment)
    try:
        assert await until(health, "/readyz", 200) == {"status": "ready"} and await get(health, "/healthz") == (200, {"status": "alive"})
        async with Noria.connect(server.url) as noria:
            result = await noria.run("doubling", 21)
            assert result.result == 42
        number = int(server.url.rpartition(":")[2])
        await server.stop()
        assert await until(health, "/readyz", 503) == {"status": "not connected to NATS"} and (await get(health, "/healthz"))[0] == 200
        server = await start_server(tmp_path / "store", number)
        await until(health, "/readyz", 200)
    finally:
        worker.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(worker.wait(), 30)
        await server.stop()
        await collector.cleanup()
    assert code == 0
    names = {s.name for s, _ in spans}
    assert {"run doubling", "step double"} <= names
    assert {a.value.string_value for _, r in spans for a in r.attributes if a.key == "service.name"} == {"my-workers"}
    assert {"noria.runs", "noria.appends", "noria.step.duration", "noria.command.lag", "noria.actors.active"} <= set(metrics)
    (line,) = [line for line in logs if line.body.string_value == "doubling 21"]
    attributes = {a.key: a.value.string_value for a in line.attributes}
    assert attributes == {"noria.workflow": "doubling", "noria.run_id": result.run_id, "noria.step": "double"}
    (step_span,) = [s for s, _ in spans if s.name == "step double"]
    assert (line.trace_id, line.span_id, line.severity_text) == (step_span.trace_id, step_span.span_id, "WARN")


async def test_a_client_without_workers_is_not_ready(noria: Noria) -> None:
    assert why_not_ready(noria) == "no worker is receiving"
    async with noria.worker():
        assert why_not_ready(noria) is None
    assert why_not_ready(noria) == "no worker is receiving"

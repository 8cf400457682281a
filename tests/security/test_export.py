"""`noria infra export`: what is in infra/ is what it writes, and servers start with it, alone and as a cluster."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from noria import Noria, Workflow, step
from noria.broker.permissions import grants, inbox, server_files
from noria.contract.channels import ROLES
from noria.contract.subjects import Subjects
from noria.embedded import free_port
from tests.security.conftest import NAMESPACE, certificates, secrets, start

ROOT = Path(__file__).parents[2]


def test_infra_holds_what_the_command_writes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from noria.cli.main import main; main()", "infra", "export", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    written = [Path(name) for name in json.loads(done.stdout)]
    assert {p.name for p in written} == {"accounts.conf", "single.conf", "cluster-1.conf", "cluster-2.conf", "cluster-3.conf"}
    for path in written:
        assert path.read_text() == (ROOT / "infra" / "nats" / path.name).read_text(), f"{path.name} drifted: run `just infra`"


def test_another_namespace_has_its_own_subjects_only() -> None:
    text = server_files("shop", nodes=1, tls=False)
    assert set(text) == {"accounts.conf", "single.conf", "cluster-1.conf"} and "tls {" not in "".join(text.values())
    assert "noria." not in text["accounts.conf"] and "SHOP_OBSERVER" in text["accounts.conf"]


def test_no_role_but_worker_and_admin_writes_into_the_namespace() -> None:
    subjects = Subjects("noria")
    for role in ROLES:
        given = grants(subjects, role)
        assert f"{inbox(role)}.>" in given.subscribe
        assert not [s for s in (*given.publish, *given.subscribe) if s in (">", "$SYS.>")]
        own = {s for s in given.publish if s.startswith(("noria.", "$KV."))}
        allowed = {"publisher": {"noria.trigger.>"}, "observer": set[str](), "operator": {"noria.api.>"}}
        assert role in ("worker", "admin") or own == allowed[role]


@step
async def double(x: int) -> int:
    return 2 * x


@pytest.mark.timeout(120)
async def test_a_cluster_of_three_with_tls_runs_workflows(tmp_path: Path) -> None:
    flow = Workflow("order").then(double).commit()
    for name, text in server_files(NAMESPACE).items():
        (tmp_path / name).write_text(text)
    certs, ports, routes = certificates(tmp_path), [free_port() for _ in range(3)], [free_port() for _ in range(3)]
    shared = {**secrets(), **certs, **{f"NORIA_ROUTE_{n}": f"nats-route://127.0.0.1:{port}" for n, port in enumerate(routes, 1)}}

    def node(n: int) -> subprocess.Popen[bytes]:
        own = {
            "NORIA_LISTEN": f"127.0.0.1:{ports[n]}", "NORIA_CLUSTER_LISTEN": f"127.0.0.1:{routes[n]}",
            "NORIA_MONITOR": f"127.0.0.1:{free_port()}", "NORIA_STORE": str(tmp_path / f"store-{n}"),
        }  # fmt: skip
        return start(tmp_path / f"cluster-{n + 1}.conf", {**shared, **own})

    servers = await asyncio.gather(*(asyncio.to_thread(node, n) for n in range(3)))
    try:
        tls = ssl.create_default_context(cafile=certs["NORIA_TLS_CA"])

        def connect(role: str) -> object:
            options = {"user": role, "password": f"secret-of-{role}", "inbox_prefix": f"_INBOX_{role}", "tls": tls, "replicas": 3}
            return Noria.connect(f"tls://127.0.0.1:{ports[0]}", namespace=NAMESPACE, **options)

        async with connect("admin") as admin:
            assert len(await admin.infra.apply()) == 6
            assert all("replicas 3" in detail for name, ok, detail in await admin.doctor() if name.startswith(("SHOP", "KV_")))
        async with connect("worker") as noria, noria.worker(flow):
            assert (await noria.run(flow, 4)).result == 8
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait(10)


async def test_the_environment_says_who_we_are(guarded: object, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "NATS_URL": guarded.url, "NATS_USER": "admin", "NATS_PASSWORD": "secret-of-admin", "NATS_CA": guarded.ca,
        "NATS_INBOX_PREFIX": "_INBOX_admin",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-c", "from noria.cli.main import main; main()", "infra", "plan", "--namespace", NAMESPACE, "--json"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, env=dict(os.environ), timeout=30)
    assert done.returncode == 0 and isinstance(json.loads(done.stdout), list), done.stderr

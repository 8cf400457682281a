"""The nats CLI as the users of infra/nats: what docs/operating.md says that each of them may do."""

from __future__ import annotations

import asyncio
import os
import warnings
from pathlib import Path

import pytest

from noria.broker.permissions import inbox, js_prefix
from noria.contract.channels import Role
from tests.cli.test_nats_cli import COMMANDS, NATS, order
from tests.security.conftest import NAMESPACE, SUBJECTS, Guarded

MAY: dict[Role, tuple[str, ...]] = {
    "publisher": ("req noria.trigger",),
    "operator": ("req noria.api", "service"),
    "observer": ("sub 'noria.run.order.>' --wait", "stream get", "stream subjects", "consumer info", "kv get"),
    "admin": ("sub 'noria.run.order.r1", "stream ls", "consumer report", "kv ls", "req noria.worker"),
}
MAY_NOT: dict[Role, tuple[str, ...]] = {
    "publisher": ("kv get", "req noria.api.list"), "operator": ("kv get", "sub 'noria.dead"),
    "observer": ("stream ls", "sub 'noria.dead"), "admin": (),
}  # fmt: skip


async def run(guarded: Guarded, role: Role, command: str, folder: Path) -> tuple[str, int | None]:
    """What the CLI prints, and its exit code."""
    assert NATS is not None
    prefix = f"--timeout 2s --inbox-prefix {inbox(role)}" + (f" --js-api-prefix '{js_prefix(SUBJECTS)}'" if role == "observer" else "")
    named = command.removeprefix("nats ").replace("NORIA_", f"{NAMESPACE.upper()}_")
    named = named.replace("noria.", f"{NAMESPACE}.").replace("noria-", f"{NAMESPACE}-")
    mine = {"NATS_URL": guarded.url, "NATS_USER": role, "NATS_PASSWORD": f"secret-of-{role}", "NATS_CA": guarded.ca, "XDG_CONFIG_HOME": str(folder)}
    process = await asyncio.create_subprocess_shell(
        f"{NATS} {prefix} {named}", env={**os.environ, **mine}, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    return out.decode(), process.returncode


def chosen(table: dict[Role, tuple[str, ...]]) -> list[tuple[Role, str]]:
    return [(role, c) for role, words in table.items() for c in COMMANDS if any(c.startswith(f"nats {w}") for w in words)]


@pytest.mark.timeout(120)
async def test_what_each_user_may_do_with_the_nats_cli(guarded: Guarded, tmp_path: Path) -> None:
    if NATS is None:
        warnings.warn("NO nats BINARY: the users of infra/nats are NOT tested with it", stacklevel=1)
        pytest.skip("no nats binary: go install github.com/nats-io/natscli/nats@v0.5.1")
    async with guarded.connect("admin") as admin:
        await admin.broker.provision()
    async with guarded.connect("worker") as noria, noria.worker(order):
        assert (await noria.create_run(order, "r1").start({"quantity": 1})).status == "suspended"
        for role, command in chosen(MAY):
            printed, code = await run(guarded, role, command, tmp_path)
            assert "permissions violation" not in printed.lower() and code == 0, f"{role}: {command}\n{printed}"
        tried = chosen(MAY_NOT)
        answers = await asyncio.gather(*(run(guarded, role, command, tmp_path) for role, command in tried))
        for (role, command), (printed, _) in zip(tried, answers, strict=True):
            assert "permissions violation" in printed.lower(), f"{role}: {command}\n{printed}"

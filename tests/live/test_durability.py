"""`noria doctor` says what the server promises of its disk, where it may know."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from noria import Noria
from noria.embedded import find_binary, free_port
from noria.errors import NoriaError


async def durability(noria: Noria) -> str:
    await noria.broker.provision()
    ((_, ok, detail),) = [check for check in await noria.doctor() if check[0] == "durability"]
    assert ok
    return detail


async def test_a_user_without_the_system_account_is_told_where_to_look(noria: Noria) -> None:
    assert "not visible" in await durability(noria)


async def test_a_user_who_imports_the_service_is_told(tmp_path: Path) -> None:
    for setting, said in (("always", "sync_interval always"), ('"10s"', "sync_interval 10 s")):
        port, config = free_port(), tmp_path / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{tmp_path}/{port}", sync_interval: {setting} }}\nsystem_account: SYS\n'
            'accounts {\n  SYS { users: [{user: s, password: s}], exports: [{service: "$SYS.REQ.SERVER.PING.JSZ"}] }\n'
            "  APP { jetstream: enabled, users: [{user: a, password: a}],\n"
            '    imports: [{service: {account: SYS, subject: "$SYS.REQ.SERVER.PING.JSZ"}}] }\n}\n'
        )
        server = subprocess.Popen([find_binary(), "-c", str(config), "-l", str(tmp_path / "log")])
        try:
            async with asyncio.timeout(15):
                while True:
                    try:
                        async with Noria.connect(f"nats://a:a@127.0.0.1:{port}") as noria:
                            assert said in await durability(noria)
                            break
                    except NoriaError:
                        await asyncio.sleep(0.1)
        finally:
            server.kill()
            server.wait()

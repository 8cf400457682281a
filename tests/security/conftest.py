"""A nats-server with the exported configuration: TLS, accounts, users."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from noria import Noria
from noria.broker.permissions import inbox, js_prefix, server_files
from noria.contract.channels import ROLES, Role
from noria.contract.subjects import Subjects
from noria.embedded import find_binary, free_port

NAMESPACE = "shop"
SUBJECTS = Subjects(NAMESPACE)


def secrets() -> dict[str, str]:
    """A password per role, as the server's environment gives it."""
    return {f"NORIA_{role.upper()}_PASSWORD": f"secret-of-{role}" for role in (*ROLES, "system")}


def certificates(folder: Path) -> dict[str, str]:
    """A CA of our own, and a certificate for the loopback address."""
    today = datetime.datetime.now(datetime.UTC)

    def signed(name: str, key: Any, issuer: x509.Name, by: Any, *, ca: bool) -> x509.Certificate:
        hosts = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])
        builder = (
            x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])).issuer_name(issuer)
            .public_key(key.public_key()).serial_number(x509.random_serial_number()).not_valid_before(today - datetime.timedelta(days=1))
            .not_valid_after(today + datetime.timedelta(days=1)).add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(hosts, critical=False)
        )  # fmt: skip
        return builder.sign(by, hashes.SHA256())

    root, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test ca")])
    files = {
        "NORIA_TLS_CA": signed("test ca", root, issuer, root, ca=True).public_bytes(serialization.Encoding.PEM),
        "NORIA_TLS_CERT": signed("localhost", own, issuer, root, ca=False).public_bytes(serialization.Encoding.PEM),
        "NORIA_TLS_KEY": own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }
    for name, text in files.items():
        (folder / name).write_bytes(text)
    return {name: str(folder / name) for name in files}


class Guarded(NamedTuple):
    """The server: its address, and the CA that signed its certificate."""

    url: str
    ca: str

    def options(self, role: Role) -> dict[str, Any]:
        """How a role connects, as nats-py and Noria.connect take it."""
        given = {"user": role, "password": f"secret-of-{role}", "inbox_prefix": inbox(role), "tls": ssl.create_default_context(cafile=self.ca)}
        return {**given, "js_prefix": js_prefix(SUBJECTS)} if role == "observer" else given

    def connect(self, role: Role, via: str = "streams") -> Any:
        return Noria.connect(self.url, namespace=NAMESPACE, via=via, **self.options(role))


def start(config: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a server and wait until it is healthy."""
    log = config.with_suffix(".log")
    command = [find_binary(), "-c", str(config), "-l", str(log)]
    server = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{environment['NORIA_MONITOR']}/healthz?js-enabled-only=true", timeout=1) as answer:
                if answer.status == 200:
                    return server
        except OSError:
            time.sleep(0.05)
    server.kill()
    raise AssertionError(log.read_text() if log.exists() else "no log")


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    for name, text in server_files(NAMESPACE).items():
        (folder / name).write_text(text)
    certs, port = certificates(folder), free_port()
    environment = {
        **secrets(), **certs, "NORIA_LISTEN": f"127.0.0.1:{port}", "NORIA_MONITOR": f"127.0.0.1:{free_port()}",
        "NORIA_STORE": str(folder / "store"),
    }  # fmt: skip
    server = start(folder / "single.conf", environment)
    yield Guarded(f"tls://127.0.0.1:{port}", certs["NORIA_TLS_CA"])
    server.terminate()
    server.wait(10)

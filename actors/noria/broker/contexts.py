"""Where a server is and who we are there: contexts and environment variables of the nats CLI."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Any

import orjson

from noria.errors import NoriaError

# (in a context, in the environment, as nats-py and open_connection take it); the last two variables are ours
NAMES = (
    ("creds", "NATS_CREDS", "user_credentials"), ("nkey", "NATS_NKEY", "nkeys_seed"), ("user", "NATS_USER", "user"),
    ("password", "NATS_PASSWORD", "password"), ("token", "NATS_TOKEN", "token"),
    ("inbox_prefix", "NATS_INBOX_PREFIX", "inbox_prefix"), ("jetstream_api_prefix", "NATS_JS_PREFIX", "js_prefix"),
)  # fmt: skip


def environment_options() -> dict[str, Any]:
    """Connection options that NATS_USER, NATS_PASSWORD, NATS_CREDS, NATS_CA and so on give."""
    options = {ours: os.environ[name] for _, name, ours in NAMES if os.environ.get(name)}
    return {**options, **_tls({key: os.environ.get(f"NATS_{key.upper()}") for key in ("ca", "cert", "key")})}


def context_options() -> tuple[str | None, dict[str, Any]]:
    """(url, options) of a nats CLI context: `NATS_CONTEXT`, or the selected one. (None, {}) without any."""
    home = os.path.join(os.environ.get("XDG_CONFIG_HOME", os.path.expanduser("~/.config")), "nats")
    name = os.environ.get("NATS_CONTEXT")
    if not name:
        try:
            with open(os.path.join(home, "context.txt"), encoding="utf-8") as file:
                name = file.read().strip()
        except OSError:
            return None, {}
    try:
        with open(os.path.join(home, "context", f"{name}.json"), "rb") as file:
            data: dict[str, Any] = orjson.loads(file.read())
    except OSError as error:
        raise NoriaError(f"there is no nats context {name!r} in {home}") from error
    options = {ours: data[theirs] for theirs, _, ours in NAMES if data.get(theirs)}
    return data.get("url") or None, {**options, **_tls(data)}


def _tls(files: Mapping[str, str | None]) -> dict[str, ssl.SSLContext]:
    if not files.get("ca") and not files.get("cert"):
        return {}
    tls = ssl.create_default_context(cafile=files.get("ca") or None)
    if cert := files.get("cert"):
        tls.load_cert_chain(cert, files.get("key") or None)
    return {"tls": tls}

"""Contexts of the nats CLI: where a server is and who we are there."""

from __future__ import annotations

import os
import ssl
from typing import Any

import orjson

from noria.errors import NoriaError


def context_options(name: str | None = None) -> tuple[str | None, dict[str, Any]]:
    """(url, options) of a nats CLI context: the named one, `NATS_CONTEXT`, or the selected one. (None, {}) without any."""
    home = os.path.join(os.environ.get("XDG_CONFIG_HOME", os.path.expanduser("~/.config")), "nats")
    name = name or os.environ.get("NATS_CONTEXT")
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
    keys = {"creds": "user_credentials", "nkey": "nkeys_seed", "user": "user", "password": "password", "token": "token"}
    options: dict[str, Any] = {ours: data[theirs] for theirs, ours in keys.items() if data.get(theirs)}
    if data.get("ca") or data.get("cert"):
        tls = ssl.create_default_context(cafile=data.get("ca") or None)
        if data.get("cert"):
            tls.load_cert_chain(data["cert"], data.get("key") or None)
        options["tls"] = tls
    return data.get("url") or None, options

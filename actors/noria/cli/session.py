"""What every command needs: workflows by name, input, a connection, exit codes."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypeVar

import typer

from noria.cli.output import fail
from noria.client.noria import Noria
from noria.codec import AesGcm
from noria.errors import BrokerUnavailable, DefinitionError, InvalidInput, NoriaError, RunFailed, RunTripped, choices
from noria.workflow.builder import Workflow

SUCCESS, FAILED, USAGE, UNREACHABLE, SUSPENDED = 0, 1, 2, 3, 4
EXIT_OF_STATUS = {"success": SUCCESS, "suspended": SUSPENDED, "paused": SUSPENDED}

Server = Annotated[str | None, typer.Option("--server", "-s", help="NATS address; else NATS_URL, else the nats context.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Noria namespace.", envvar="NORIA_NAMESPACE")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
VIA: ContextVar[str] = ContextVar("via", default="streams")  # how commands reach the namespace
T = TypeVar("T")


def is_local(target: str) -> bool:
    """Whether it names a workflow by its code, not by the id under which a worker registered it."""
    return ":" in target or target.endswith(".py")


def load_workflow(target: str) -> Workflow:
    """The workflow at `module:attr` or `file.py:attr`. Raises InvalidInput that lists what the module has."""
    place, _, attribute = (f"{target}:" if target.endswith(".py") else target).rpartition(":")
    if not place or not (attribute or place.endswith(".py")):
        raise InvalidInput(f"{target!r}: give MODULE:ATTR or FILE.py:ATTR")
    contents = dict[str, Any](vars(_import(place)))
    found = contents.get(attribute)
    if not isinstance(found, Workflow):
        names = sorted(name for name, value in contents.items() if isinstance(value, Workflow))
        wrong = f"has no workflow {attribute!r}" if attribute else "is no workflow by itself"
        raise InvalidInput(f"{place!r} {wrong}: give {place}:ATTR; it has {choices(names)}")
    return found if found.committed else found.commit()


def _import(place: str) -> ModuleType:
    """The module. Raises InvalidInput when it is not there or when its own code raises; NoriaErrors pass."""
    try:
        if place.endswith(".py"):
            return _import_file(Path(place))
        sys.path.insert(0, os.getcwd())
        return importlib.import_module(place)
    except NoriaError:
        raise
    except Exception as error:
        raise InvalidInput(f"cannot import {place!r}: {type(error).__name__}: {error}{_where(error)}") from error


def _where(error: BaseException) -> str:
    """The file and line of the user's code that raised, in brackets, if there is any."""
    own = (__file__, importlib.__file__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename not in own and not f.filename.startswith("<")]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames and not isinstance(error, SyntaxError) else ""


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InvalidInput(f"there is no file {str(path)!r}")
    sys.path.insert(0, str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def read_json(text: str | None, option: str) -> Any:
    """JSON given as text, as @file, or on stdin as -. Raises InvalidInput."""
    if text is None:
        return None
    try:
        source = sys.stdin.read() if text == "-" else Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        return json.loads(source)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{option}: {error}. Give JSON, @FILE, or - for stdin") from error


def is_private(server: str | None) -> bool:
    """Whether nobody named a server, so that a workflow given by its file runs on one of its own."""
    return server is None and not os.environ.get("NATS_URL")


@asynccontextmanager
async def connected(
    server: str | None, namespace: str, *, embedded: bool = False, **options: Any
) -> AsyncGenerator[Noria, None]:
    """A connection; with `embedded` to a private server unless one is named. NORIA_CODEC_KEYS: see AesGcm.of."""
    keys = os.environ.get("NORIA_CODEC_KEYS")
    codec = AesGcm.of(keys) if keys else None
    if embedded and is_private(server):
        opening = Noria.embedded(namespace=namespace)
    else:
        opening = Noria.connect(server, namespace=namespace, via=VIA.get(), codec=codec, **options)
    async with opening as noria:
        yield noria


def execute(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work; errors become one line on stderr and api.md's exit code."""
    try:
        return _runner()(work)
    except BrokerUnavailable as error:
        fail(error, UNREACHABLE)
    except (RunFailed, RunTripped) as error:
        fail(error, FAILED)
    except (InvalidInput, DefinitionError, NoriaError) as error:
        fail(error, USAGE)
    except TimeoutError as error:
        fail(error, FAILED)
    except KeyboardInterrupt:
        fail(KeyboardInterrupt("interrupted"), FAILED)


def _runner() -> Any:
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run

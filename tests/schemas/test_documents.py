"""schemas/ is what the code says, is valid itself, and each schema has a golden example that is valid, too."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from noria.codec import AesGcm
from noria.codec.sealing import Sealing
from noria.contract import calls, commands, envelopes
from noria.contract.channels import CHANNELS
from noria.contract.facts import Fact
from noria.contract.wire import FACTS
from noria.ports import RunKey
from tests.schemas.checking import ASYNCAPI, BASE, DOCUMENTS, REGISTRY, ROOT, problems, problems_of_event

EXAMPLES = ROOT / "examples"
SCHEMAS = sorted(name for name in DOCUMENTS if name != "asyncapi")


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_folder_holds_what_the_command_writes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from noria.cli.main import main; main()", "schemas", "export", "--to", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    written = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json")}
    kept = {str(p.relative_to(ROOT)) for p in ROOT.rglob("*.json") if EXAMPLES not in p.parents}
    assert written == kept, "run `just schemas`, remove what is no more"
    for name in written:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), f"{name} drifted: run `just schemas`"


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_schema_is_valid_and_so_is_its_golden_example(name: str) -> None:
    Draft202012Validator.check_schema(DOCUMENTS[name])
    assert problems(name, load(EXAMPLES / f"{name}.json")) == []
    assert problems(name, {"nonsense": 1}) != [] or "properties" not in DOCUMENTS[name]


def test_there_is_no_example_of_something_else() -> None:
    assert {str(p.relative_to(EXAMPLES))[:-5] for p in EXAMPLES.rglob("*.json")} == set(SCHEMAS)


@pytest.mark.parametrize("name", [n for n in SCHEMAS if n.startswith("events/") and n != "events/batch"])
def test_golden_events_are_cloudevents(name: str) -> None:
    assert problems_of_event(load(EXAMPLES / f"{name}.json")) == []


def test_golden_facts_and_commands_are_read_for_ever() -> None:
    read: set[type[Fact]] = set()
    for type in (*FACTS, "batch"):
        body = (EXAMPLES / "events" / f"{type}.json").read_bytes()
        message = envelopes.decode(body)
        read |= {fact.__class__ for fact in message.facts}
        again = json.loads(envelopes.Envelope("noria", "order", "r1", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").encode("", message))
        first = load(EXAMPLES / "events" / f"{type}.json")
        assert again == first, f"{type}: the encoder writes something else now"
    assert {c.__name__ for c in read} == {a.__name__ for a in Fact.__args__}
    for kind in commands.KINDS:
        body = (EXAMPLES / "commands" / f"{kind}.json").read_bytes()
        assert json.loads(commands.encode(commands.decode(body))) == json.loads(body)


def test_golden_sealed_bodies_open_for_ever() -> None:
    sealing, run = Sealing(AesGcm({"example": bytes(32)})), RunKey("order", "r1")
    opened = sealing.open_events(run, (EXAMPLES / "events" / "sealed.json").read_bytes())
    assert json.loads(opened) == load(EXAMPLES / "events" / "workflow-step-result.json")
    for name, plain in (("commands/sealed", "commands/start"), ("records/sealed", "records/record"), ("news/sealed", "news/rest")):
        body = json.dumps(load(EXAMPLES / f"{name}.json"), separators=(",", ":")).encode()
        assert json.loads(sealing.open_fields(run, body)) == load(EXAMPLES / f"{plain}.json")
    schedule = (EXAMPLES / "records" / "sealed-schedule.json").read_bytes()
    assert json.loads(sealing.open_fields(RunKey("order", "@weekdays"), schedule)) == load(EXAMPLES / "records" / "schedule.json")
    call = (EXAMPLES / "calls" / "sealed.json").read_bytes()
    secret = calls.secret_of(call)
    assert secret is not None and json.loads(sealing.open_fields(secret, call)) == load(EXAMPLES / "calls" / "call.json")
    reply = (EXAMPLES / "calls" / "sealed-reply.json").read_bytes()
    assert json.loads(sealing.open_fields(secret, reply)) == load(EXAMPLES / "calls" / "success.json")


def test_asyncapi_names_every_channel_and_every_schema() -> None:
    document = DOCUMENTS["asyncapi"]
    assert [e.message[:500] for e in ASYNCAPI.iter_errors(document)] == []
    assert list(document["channels"]) == [c.name for c in CHANNELS]
    used = {ref["$ref"].rpartition("/")[2] for c in document["channels"].values() for ref in c["messages"].values()}
    assert used <= set(document["components"]["messages"])
    payloads = [m["payload"].get("$ref") for m in document["components"]["messages"].values()]
    assert {p for p in payloads if p} == {f"{name}.json" for name in SCHEMAS} and all((ROOT / p).is_file() for p in payloads if p)
    for channel in document["channels"].values():
        assert set(channel["parameters"]) == set(re.findall(r"\{(\w+)\}", channel["address"]))
    unused = set(document["components"]["messages"]) - used
    assert unused <= {"records-summary"}, f"no channel carries {unused}"


def test_all_references_lead_somewhere() -> None:
    def walk(value: Any, base: str) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                REGISTRY.resolver(base).lookup(value["$ref"])
            for child in value.values():
                walk(child, base)
        elif isinstance(value, list):
            for child in value:
                walk(child, base)

    for name in SCHEMAS:
        walk(DOCUMENTS[name], f"{BASE}{name}.json")


def test_schemas_of_workflows(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(
        "from pydantic import BaseModel\nfrom noria import Workflow, step, Context\n"
        "class Order(BaseModel):\n    sku: str\nclass Answer(BaseModel):\n    ok: bool\n"
        "@step(resume=Answer)\nasync def approve(order: Order, ctx: Context) -> bool: ...\n"
        "inner = Workflow('inner', input=bool).then(approve.clone(id='deep')).commit()\n"
        "order = Workflow('order', input=Order, output=bool).then(approve).then(inner).commit()\n"
    )
    command = [sys.executable, "-c", "from noria.cli.main import main; main()", "schemas", "export", f"{tmp_path}/flows.py:order"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert set(found) == {
        "order/input", "order/output", *(f"order/steps/approve/{p}" for p in ("input", "output", "resume")),
        "order/nested/inner/input", "order/nested/inner/output",
        *(f"order/nested/inner/steps/deep/{p}" for p in ("input", "output", "resume")),
    }  # fmt: skip
    assert found["order/input"]["properties"]["sku"] == {"title": "Sku", "type": "string"} and found["order/output"] == {"type": "boolean"}
    for schema in found.values():
        Draft202012Validator.check_schema(schema)
    subprocess.run([*command, "--to", str(tmp_path / "out")], check=True, capture_output=True)
    assert load(tmp_path / "out" / "order" / "input.json") == found["order/input"]

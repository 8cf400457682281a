"""infra/: every file against the standard that it follows, and all of them against each other. No engine is needed."""

from __future__ import annotations

import ast
import gzip
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from jsonschema import Draft7Validator, Draft202012Validator
from typer.main import get_command

from noria.cli.main import app
from noria.cli.session import load_workflow
from noria.embedded import find_binary
from tests.infra.test_manifests import COMPOSE, INFRA, MANIFESTS, of

ROOT = INFRA.parent
SCHEMAS = Path(__file__).parent / "schemas"
SERVICES: dict[str, Any] = COMPOSE["services"]
NODES = [name for name in SERVICES if name.startswith("nats-")]
OURS = ["provision", "worker-1", "worker-2"]


def standard(name: str) -> Any:
    return json.loads(gzip.decompress((SCHEMAS / f"{name}.json.gz").read_bytes()))


def env_file() -> dict[str, str]:
    return dict(line.split("=", 1) for line in (INFRA / "compose" / "env.example").read_text().splitlines())


def text_of(value: Any) -> Iterator[str]:
    """Every text in a document."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield str(key)
            yield from text_of(child)
    elif isinstance(value, list):
        for child in value:
            yield from text_of(child)
    elif value is not None:
        yield str(value)


def test_compose_is_what_the_specification_says() -> None:
    validator = Draft202012Validator(standard("compose-spec"))
    assert [e.message[:300] for e in validator.iter_errors(COMPOSE)] == []
    assert list(validator.iter_errors({**COMPOSE, "services": {"nats-1": {"image": "nats", "commands": []}}}))


def test_manifests_are_what_kubernetes_takes() -> None:
    bundle, checked = standard("kubernetes-1.37"), list[str]()
    for manifest in MANIFESTS:
        kind = f"{manifest['apiVersion']} {manifest['kind']}"
        if kind in bundle["kinds"]:
            validator = Draft7Validator({**bundle["kinds"][kind], "$defs": bundle["$defs"]})
            assert [f"{'.'.join(map(str, e.absolute_path))}: {e.message[:300]}" for e in validator.iter_errors(manifest)] == []
            assert list(validator.iter_errors({**manifest, "specs": {}}))
            checked.append(kind)
    assert checked == ["v1 ServiceAccount", "apps/v1 Deployment", "policy/v1 PodDisruptionBudget"]  # KEDA's own kind has no schema here


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What certificates.sh makes."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    folder = tmp_path_factory.mktemp("compose")
    (folder / "certificates.sh").write_text((INFRA / "compose" / "certificates.sh").read_text())
    subprocess.run(["bash", str(folder / "certificates.sh")], check=True, capture_output=True)
    return folder / "certs"


def node_environment(name: str, certificates: Path) -> dict[str, str]:
    given = {key: str(value).replace("/certs", str(certificates)) for key, value in SERVICES[name]["environment"].items()}
    return {**os.environ, **env_file(), **given}


@pytest.mark.parametrize("config", ["single", "cluster-1", "cluster-2", "cluster-3"])
def test_the_server_takes_its_configuration(config: str, certificates: Path) -> None:
    environment = node_environment(config.replace("cluster", "nats").replace("single", "nats-1"), certificates)
    command = [find_binary(), "-t", "-c", str(INFRA / "nats" / f"{config}.conf")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


def test_the_certificate_is_for_the_names_that_clients_use(certificates: Path) -> None:
    certificate = x509.load_pem_x509_certificate((certificates / "server.pem").read_bytes())
    names = set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName))
    asked = {host for name in OURS for host in re.findall(r"tls://([\w-]+):", str(SERVICES[name]["environment"]))}
    assert asked == set(NODES) <= names


def served() -> dict[str, set[str]]:
    """The ports that each service listens on, by what configures it."""
    collector = yaml.safe_load((INFRA / "compose" / "collector.yaml").read_text())
    endpoints = re.findall(r"'endpoint': '[\d.]+:(\d+)'", str(collector))
    listens = SERVICES["nats-1"]["environment"].items()  # all nodes have the same
    of_node = {str(v).rpartition(":")[2] for k, v in listens if k.endswith(("LISTEN", "MONITOR"))}
    ports = dict.fromkeys(NODES, of_node)
    workers = {name: {str(parsed(SERVICES[name]["command"])[1]["health_port"])} for name in OURS if "worker" in name}
    return {**ports, **workers, "collector": set(endpoints), "prometheus": {"9090"}, "grafana": {"3000"}}  # those two by default


def test_every_host_and_port_that_is_named_is_served() -> None:
    documents: dict[str, Any] = {"compose": COMPOSE}
    documents |= {n: yaml.safe_load((INFRA / "compose" / f"{n}.yaml").read_text()) for n in ("prometheus", "grafana", "dashboards", "collector")}
    named = {pair for d in documents.values() for text in text_of(d) for pair in re.findall(r"\b([a-z][\w-]*):(\d{4,5})\b", text)}
    assert {"nats-1", "collector", "prometheus"} <= {host for host, _ in named}
    for host, port in named:
        assert port in served()[host], f"{host}:{port}"
    for name, service in SERVICES.items():
        for published in service.get("ports", []):
            assert published.rpartition(":")[2] in served()[name], f"{name}: {published}"
        for port in re.findall(r"127\.0\.0\.1:(\d+)", str(service.get("healthcheck", ""))):
            assert port in served()[name], f"{name}: its health is asked on port {port}"


def test_every_variable_of_ours_is_read_by_somebody() -> None:
    source = "".join(path.read_text() for path in (ROOT / "actors" / "noria").rglob("*.py"))
    container = of("Deployment")["spec"]["template"]["spec"]["containers"][0]
    given = {key for name in OURS for key in SERVICES[name]["environment"]} | {e["name"] for e in container["env"]}
    assert {"NATS_URL", "NATS_CA", "NORIA_REPLICAS"} <= given
    unknown = {name for name in given if f'"{name}"' not in source and not (name == "NATS_CA" and "NATS_{key.upper()}" in source)}
    assert not unknown
    assert {"NORIA_SYSTEM_PASSWORD", "GRAFANA_PASSWORD"} < set(env_file())


def test_what_is_mounted_is_where_it_is_looked_for() -> None:
    mounts = {name: dict(reversed(v.split(":")[:2]) for v in s.get("volumes", [])) for name, s in SERVICES.items()}
    for name in NODES:
        assert mounts[name] == {"/etc/nats": "../nats", "/certs": "./certs", "/data": name}
    assert SERVICES["collector"]["command"] == ["--config=/etc/collector.yaml"] and mounts["collector"]["/etc/collector.yaml"] == "./collector.yaml"
    assert "/etc/prometheus/prometheus.yml" in mounts["prometheus"]  # where its image looks
    (provider,) = yaml.safe_load((INFRA / "compose" / "dashboards.yaml").read_text())["providers"]
    assert mounts["grafana"][provider["options"]["path"]] == "../grafana"
    (source,) = yaml.safe_load((INFRA / "compose" / "grafana.yaml").read_text())["datasources"]
    dashboard = json.loads((INFRA / "grafana" / "noria.json").read_text())
    (choice,) = [v for v in dashboard["templating"]["list"] if v["type"] == "datasource"]
    assert choice["query"] == source["type"] == "prometheus" and choice["name"] == "datasource"


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command that the real CLI makes of a line, and its parameters. Raises what the CLI would say."""
    assert words[0] == "noria"
    command: Any = get_command(app)
    context, rest, path = None, words[1:], list[str]()
    while hasattr(command, "resolve_command"):
        context = command.make_context(command.name or "noria", rest, parent=context)
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        path.append(name)
    return " ".join(path), command.make_context(path[-1], rest, parent=context).params


def test_the_command_lines_are_those_of_the_real_cli() -> None:
    assert parsed(SERVICES["provision"]["command"])[0] == "infra apply"
    lines = [SERVICES["worker-1"]["command"], SERVICES["worker-2"]["command"], of("Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]]
    for line in lines:
        name, given = parsed(line)
        assert name == "worker" and given["health_port"] == 8080
        (target,) = given["targets"]
        assert load_workflow(f"{ROOT}/{target}").id == "order"
    with pytest.raises(Exception, match="No such option"):
        parsed([*lines[0], "--no-such-option"])
    (tip,) = re.findall(r"docker compose exec worker-1 (noria .*)", (INFRA / "compose" / "compose.yaml").read_text())
    name, given = parsed([word.strip("'") for word in re.findall(r"'[^']*'|\S+", tip)])
    assert (name, given["workflow"]) == ("run", "order")
    load_workflow(f"{ROOT}/examples/order.py:order").parse_input(json.loads(given["input"]))
    (check,) = [s["healthcheck"]["test"] for s in [SERVICES["worker-1"]]]
    assert check[:3] == ["CMD", "python", "-c"] and ast.parse(check[3])


def test_the_image_is_built_from_what_there_is() -> None:
    lines = [line.split() for line in (INFRA / "compose" / "Dockerfile").read_text().splitlines() if line]
    for source in [word for line in lines if line[0] == "COPY" for word in line[1:-1]]:
        assert (ROOT / source).exists(), source
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", " ".join(lines[-4]))
    assert set(extras.split(",")) <= set(project["optional-dependencies"]) and {"otel", "health"} <= set(extras.split(","))
    version = re.fullmatch(r"python:(\d+)\.(\d+)-slim", lines[0][1])
    assert version is not None and (int(version[1]), int(version[2])) >= (3, 11) and project["requires-python"] == ">=3.11"
    assert (INFRA / "compose" / SERVICES["worker-1"]["build"]["context"]).resolve() == ROOT
    assert (ROOT / SERVICES["worker-1"]["build"]["dockerfile"]).is_file()

"""infra/: the dashboard names metrics that exist, compose and Kubernetes files are what they seem, as far as no engine is needed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from noria.broker.permissions import server_files
from noria.contract.channels import ROLES
from noria.contract.subjects import Subjects
from noria.telemetry.export import SIGNALS
from noria.telemetry.metrics import ALL

INFRA = Path(__file__).parents[2] / "infra"
COMPOSE = yaml.safe_load((INFRA / "compose" / "compose.yaml").read_text())
MANIFESTS = [d for name in ("worker.yaml", "autoscaling.yaml") for d in yaml.safe_load_all((INFRA / "k8s" / name).read_text())]
DASHBOARD = json.loads((INFRA / "grafana" / "noria.json").read_text())


def test_the_dashboard_names_only_metrics_and_labels_that_exist() -> None:
    known = {name: m.labels for m in ALL for name in m.prometheus}
    queries = [t["expr"] for p in DASHBOARD["panels"] for t in p["targets"]]
    queries += [v["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    used = {name for q in queries for name in re.findall(r"\bnoria_\w+", q)}
    assert used <= set(known), used - set(known)
    for metric in ALL:
        assert set(metric.prometheus) & used, f"no panel shows {metric.name}"
    for query in queries:
        labels = {label for name in re.findall(r"\bnoria_\w+", query) for label in known[name]} | {"le"}
        wanted = set(re.findall(r"(\w+)=~?\"", query)) | {g.strip() for by in re.findall(r"by \(([^)]*)\)", query) for g in by.split(",")}
        assert wanted <= labels, (query, wanted - labels)


def test_the_dashboard_is_one() -> None:
    ids = [p["id"] for p in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids)) and DASHBOARD["uid"] and DASHBOARD["schemaVersion"] >= 39
    assert all(p["datasource"]["uid"] == "${datasource}" and p["targets"] and p["title"] for p in DASHBOARD["panels"])


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    return [(v.split(":")[0], v.split(":")[1]) for v in service.get("volumes", [])]


def test_compose_is_three_nodes_two_workers_and_telemetry() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"nats-1", "nats-2", "nats-3", "provision", "worker-1", "worker-2", "collector", "prometheus", "grafana"}
    for name, service in services.items():
        assert "image" in service or "build" in service, name
        for needed in service.get("depends_on", {}):
            assert needed in services
        for source, _ in mounts(service):
            if source.startswith(".") and source != "./certs":
                assert (INFRA / "compose" / source).exists(), (name, source)
            elif not source.startswith("."):
                assert source in COMPOSE["volumes"], (name, source)


def test_the_nodes_get_every_variable_that_their_configuration_asks_for() -> None:
    given = {line.partition("=")[0] for line in (INFRA / "compose" / "env.example").read_text().splitlines()}
    for n in (1, 2, 3):
        service = COMPOSE["services"][f"nats-{n}"]
        files = server_files("noria")
        asked = set(re.findall(r"\$(NORIA_\w+)", files[f"cluster-{n}.conf"] + files["accounts.conf"]))
        assert asked == {a for a in asked if a in given or a in service["environment"]}
        assert service["command"][1] == f"/etc/nats/cluster-{n}.conf" and ("../nats", "/etc/nats") in mounts(service)
        for _, route in [(k, v) for k, v in service["environment"].items() if k.startswith("NORIA_ROUTE_")]:
            assert route.removeprefix("nats-route://").partition(":")[0] in COMPOSE["services"]


def test_clients_are_users_of_the_configuration() -> None:
    text = (INFRA / "compose" / "compose.yaml").read_text()
    needed = set(re.findall(r"\$\{(\w+)", text))
    given = {line.partition("=")[0] for line in (INFRA / "compose" / "env.example").read_text().splitlines()}
    assert needed <= given
    for name in ("provision", "worker-1", "worker-2"):
        environment = COMPOSE["services"][name]["environment"]
        assert environment["NATS_USER"] in ROLES and environment["NATS_INBOX_PREFIX"] == f"_INBOX_{environment['NATS_USER']}"


def test_telemetry_is_wired_through() -> None:
    collector = yaml.safe_load((INFRA / "compose" / "collector.yaml").read_text())
    assert set(collector["service"]["pipelines"]) == {signal.lower() for signal in SIGNALS}
    for pipeline in collector["service"]["pipelines"].values():
        for part in ("receivers", "processors", "exporters"):
            assert set(pipeline[part]) <= set(collector[part])
    port = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    assert COMPOSE["services"]["worker-1"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://collector:{port}"
    scraped = yaml.safe_load((INFRA / "compose" / "prometheus.yaml").read_text())["scrape_configs"][0]["static_configs"][0]["targets"]
    assert scraped == [f"collector:{collector['exporters']['prometheus']['endpoint'].rpartition(':')[2]}"]
    (source,) = yaml.safe_load((INFRA / "compose" / "grafana.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker")
def test_docker_compose_accepts_it(tmp_path: Path) -> None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("this docker has no compose")
    shutil.copy(INFRA / "compose" / "env.example", tmp_path / ".env")
    options = ["--env-file", str(tmp_path / ".env"), "-f", str(INFRA / "compose" / "compose.yaml")]
    done = subprocess.run(["docker", "compose", *options, "config", "--quiet", "--no-env-resolution"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def of(kind: str) -> dict[str, Any]:
    (found,) = [m for m in MANIFESTS if m["kind"] == kind]
    return found


def test_manifests_have_what_kubernetes_requires() -> None:
    for manifest in MANIFESTS:
        assert manifest["apiVersion"] and manifest["kind"] and re.fullmatch(r"[a-z0-9-]+", manifest["metadata"]["name"])
    deployment = of("Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels == of("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    for probe, path in (("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "health"}
    arguments = container["args"]
    assert int(arguments[arguments.index("--health-port") + 1]) == ports["health"]
    assert pod["terminationGracePeriodSeconds"] > float(arguments[arguments.index("--grace") + 1])
    assert {v["name"] for v in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert pod["serviceAccountName"] == of("ServiceAccount")["metadata"]["name"]
    assert pod["securityContext"]["runAsNonRoot"] and not container["securityContext"]["allowPrivilegeEscalation"]
    kustomization = yaml.safe_load((INFRA / "k8s" / "kustomization.yaml").read_text())
    assert set(kustomization["resources"]) == {"worker.yaml", "autoscaling.yaml"}


def test_workers_scale_with_the_backlog_of_a_consumer_that_exists() -> None:
    scaled, subjects = of("ScaledObject")["spec"], Subjects("noria")
    assert scaled["scaleTargetRef"]["name"] == of("Deployment")["metadata"]["name"]
    assert scaled["minReplicaCount"] <= scaled["maxReplicaCount"]
    (trigger,) = scaled["triggers"]
    assert trigger["type"] == "nats-jetstream" and all(isinstance(v, str) for v in trigger["metadata"].values())
    assert trigger["metadata"]["stream"] == subjects.runs and trigger["metadata"]["consumer"] == subjects.consumer("order")
    assert f"  {trigger['metadata']['account']} {{" in server_files("noria")["accounts.conf"]

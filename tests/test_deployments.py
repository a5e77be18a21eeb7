"""compose.yaml and deploy/kubernetes.yaml: what their schemas say, and what both must have besides.

The schemas are those of the Compose specification and of Kubernetes. Whether what is written also runs
is not shown here: there is no container engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
import kubernetes_validate
import pytest
import yaml

from agentorch_cli.config import load_settings
from agentorch_cli.settings import Settings

ROOT = Path(__file__).parents[1]
KUBERNETES = ("1.30", "1.34")
"""Versions whose schemas the manifest has to fit."""

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
MANIFEST: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))


def compose_faults(document: Any) -> list[str]:
    """What the schema of the Compose specification has against a document."""
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    validator = jsonschema_rs.validator_for(json.loads(schema.read_text()))
    return [error.message for error in validator.iter_errors(document)]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for one in MANIFEST:
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, pod in pods():
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            yield f"{name}/{container['name']}", container


def settings_of(environment: dict[str, str]) -> Settings:
    """The settings that a container's variables make. Raises InvalidConfig for one that nobody knows."""
    return load_settings({}, environment, None, Path("/nowhere"))


def test_the_compose_file_fits_the_specification() -> None:
    assert compose_faults(COMPOSE) == []
    assert compose_faults({**COMPOSE, "services": {"serve": {"imagee": "x"}}}), (
        "the schema would take anything"
    )


@pytest.mark.parametrize("version", KUBERNETES)
def test_the_manifest_fits_kubernetes(version: str) -> None:
    for one in MANIFEST:
        kubernetes_validate.validate(one, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**MANIFEST[1], "spec": {"replica": 1}}, version, strict=True)


def test_the_services_of_the_compose_file_are_bound_and_wait_for_each_other() -> None:
    services = COMPOSE["services"]

    for name in ("serve", "serve-gpu"):
        service = services[name]
        assert service["user"] != "root"
        assert service["depends_on"]["init-db"]["condition"] == "service_completed_successfully"
        assert "/readyz" in service["healthcheck"]["test"][-1]
        assert service["deploy"]["resources"]["limits"]["memory"]
        assert "ports" not in service, "it takes everybody: nobody outside may reach it"
    assert services["init-db"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert "ports" not in services["postgres"]
    assert "${POSTGRES_PASSWORD:?" in services["postgres"]["environment"]["POSTGRES_PASSWORD"]


def test_every_container_of_the_manifest_is_bound_and_not_root() -> None:
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"], name
    for name, container in containers():
        assert container["resources"]["limits"]["memory"] and container["resources"]["requests"], name
        assert not container["securityContext"]["allowPrivilegeEscalation"], name
        secrets = [one for one in container["env"] if "PASSWORD" in one["name"] or "URL" in one["name"]]
        assert secrets and all("secretKeyRef" in one["valueFrom"] for one in secrets), name


def test_nodes_are_asked_whether_they_live_and_whether_they_are_ready() -> None:
    nodes = [pod["containers"][0] for name, pod in pods() if name.startswith("serve")]

    assert len(nodes) == 2
    for node in nodes:
        assert (
            node["livenessProbe"]["httpGet"]["path"] == node["startupProbe"]["httpGet"]["path"] == "/healthz"
        )
        assert node["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert node["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"


def test_selectors_find_their_pods_and_references_lead_somewhere() -> None:
    labels = [
        one["spec"]["template"]["metadata"]["labels"]
        for one in MANIFEST
        if one["kind"] in ("Deployment", "StatefulSet")
    ]
    maps = {one["metadata"]["name"] for one in MANIFEST if one["kind"] == "ConfigMap"}

    for one in MANIFEST:
        selector = one.get("spec", {}).get("selector")
        if selector is not None:
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= found.items() for found in labels), one["metadata"]["name"]
    for name, container in containers():
        for reference in container.get("envFrom", ()):
            assert reference["configMapRef"]["name"] in maps, name
    for name, pod in pods():
        volumes = {volume["name"] for volume in pod.get("volumes", ())} | {"data"}
        mounted = {
            mount["name"]
            for one in (*pod.get("initContainers", ()), *pod["containers"])
            for mount in one.get("volumeMounts", ())
        }
        assert mounted <= volumes, name


def test_the_variables_are_settings_and_say_what_is_meant() -> None:
    compose = {
        name: settings_of({k: v for k, v in service["environment"].items() if k.startswith("AGENTORCH_")})
        for name, service in COMPOSE["services"].items()
        if name.startswith("serve")
    }
    (data,) = (one["data"] for one in MANIFEST if one["kind"] == "ConfigMap")
    kubernetes = settings_of(data)

    assert [one.engine.pool for one in compose.values()] == ["default", "gpu"]
    assert all(one.gateway.insecure for one in compose.values())
    assert not kubernetes.gateway.insecure
    assert str(kubernetes.gateway.tls_cert) == "/tls/tls.crt"
    for one in (*compose.values(), kubernetes):
        assert one.gateway.host == "0.0.0.0"
        assert one.gateway.port == 3001


def test_the_connections_of_all_nodes_fit_into_postgresql() -> None:
    (data,) = (one["data"] for one in MANIFEST if one["kind"] == "ConfigMap")
    each = int(data["AGENTORCH_DATABASE_POOL_SIZE"]) + 8
    nodes = sum(
        one["spec"]["replicas"]
        for one in MANIFEST
        if one["kind"] == "Deployment" and one["metadata"]["name"].startswith("serve")
    )
    (most,) = (
        int(argument.removeprefix("max_connections="))
        for name, container in containers()
        for argument in container.get("args", ())
        if argument.startswith("max_connections=")
    )

    assert (nodes + 1) * each < most

"""The chart as Helm renders it: valid for Kubernetes, and with the launcher's own options."""

import json
import re
import subprocess
from typing import Any

import pytest
import yaml

from support.paths import ROOT

PYTHON = ROOT / ".venv-deploy" / "bin" / "python"
RENDER = ROOT / "tests" / "deploy" / "render.py"
CHART = ROOT / "deploy" / "helm" / "trellis"
EVERYTHING: dict[str, Any] = {
    "metrics": {"enabled": True, "serviceMonitor": {"enabled": True}},
    "autoscaling": {"enabled": True},
    "access": {
        "apiKeysSecret": "keys",
        "tlsSecret": "tls",
        "clientCaSecret": "clients",
        "corsOrigins": ["https://app.example"],
        "allowedHosts": ["llm.example.com"],
    },
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "nodeSelector": {"gpu": "h100"},
    "podAnnotations": {"a": "b"},
    "args": ["--log-format", "json"],
}
SEVERAL_HOSTS = {"group": {"size": 2}, "gpus": 8}
VALUES = [{}, EVERYTHING, SEVERAL_HOSTS, EVERYTHING | SEVERAL_HOSTS]

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="needs Helm: `ci/deploy` installs it")


def run(asked: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(PYTHON), str(RENDER), asked], capture_output=True, text=True)


def rendered(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The documents by kind and name."""
    done = run(json.dumps(values))
    assert done.returncode == 0, done.stderr
    made = [(f"{one['kind']}/{one['metadata']['name']}", one) for one in json.loads(done.stdout)]
    assert len(dict(made)) == len(made)
    return dict(made)


def pod(documents: dict[str, dict[str, Any]], role: str = "leader") -> dict[str, Any]:
    if "Deployment/t" in documents:
        template = documents["Deployment/t"]["spec"]["template"]
    else:
        group = documents["LeaderWorkerSet/t"]["spec"]["leaderWorkerTemplate"]
        template = group[f"{role}Template"]
    assert isinstance(template, dict)
    return template


def arguments(template: dict[str, Any]) -> list[str]:
    (container,) = template["spec"]["containers"]
    return [str(word) for word in container["args"]]


@pytest.mark.parametrize("values", VALUES)
def test_every_document_is_one_that_kubernetes_takes(values: dict[str, Any]) -> None:
    kinds = {name.partition("/")[0] for name in rendered(values)}
    assert {"Service", "PodDisruptionBudget", "NetworkPolicy"} <= kinds
    assert ("LeaderWorkerSet" in kinds) == ("group" in values)
    assert ("ServiceMonitor" in kinds) == ("metrics" in values)
    assert ("HorizontalPodAutoscaler" in kinds) == ("autoscaling" in values)


@pytest.mark.parametrize("name", ["deployment.yaml", "leaderworkerset.yaml"])
def test_the_plain_files_are_valid_too(name: str) -> None:
    done = run(str(ROOT / "deploy" / name))
    assert done.returncode == 0, done.stderr


def test_what_is_not_valid_is_found() -> None:
    assert run('{"replicas": "two"}').returncode == 1
    assert run('{"replica": 2}').returncode == 1
    done = run('{"autoscaling": {"enabled": true}}')
    assert "needs metrics.enabled" in done.stderr
    assert run('{"tolerations": [{"keys": "x"}]}').returncode == 1


@pytest.mark.parametrize("values", VALUES)
def test_its_options_are_the_launchers(values: dict[str, Any], launcher_options: set[str]) -> None:
    documents = rendered(values)
    used = [word for word in arguments(pod(documents)) if word.startswith("--")]
    used += [word for word in arguments(pod(documents, "worker")) if word.startswith("--")]
    assert set(used) - {"--log-format"} <= launcher_options


def test_keys_and_certificates_are_mounted_where_the_launcher_looks() -> None:
    template = pod(rendered(EVERYTHING))
    words = arguments(template)
    (container,) = template["spec"]["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    for option, secret in (
        ("--api-keys", "keys"),
        ("--tls-cert", "tls"),
        ("--tls-key", "tls"),
        ("--tls-client-ca", "clients"),
    ):
        folder = words[words.index(option) + 1].rpartition("/")[0]
        assert volumes[mounts[folder]]["secret"]["secretName"] == secret
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"


def test_without_them_probes_speak_http_and_metrics_are_shut() -> None:
    documents = rendered({})
    (container,) = pod(documents)["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["scheme"] == "HTTP"
    assert [port["name"] for port in container["ports"]] == ["http"]
    (rule,) = documents["NetworkPolicy/t"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": 8000}]
    assert documents["NetworkPolicy/t"]["spec"]["egress"] == []


def test_workers_are_not_asked_and_have_no_secrets() -> None:
    documents = rendered(EVERYTHING | SEVERAL_HOSTS)
    worker, leader = pod(documents, "worker"), pod(documents)
    assert "--api-keys" not in arguments(worker)
    assert not [volume for volume in worker["spec"]["volumes"] if "secret" in volume]
    assert arguments(worker)[:2] == arguments(leader)[:2] == ["--world_size", "16"]
    selector = documents["Service/t"]["spec"]["selector"].items()
    assert selector <= leader["metadata"]["labels"].items()
    assert not selector <= worker["metadata"]["labels"].items()


@pytest.mark.parametrize("values", VALUES)
def test_a_pod_has_no_rights_and_time_to_stop(values: dict[str, Any]) -> None:
    template = pod(rendered(values))
    spec = template["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    words = arguments(template)
    drain_timeout = int(words[words.index("--drain_timeout") + 1])
    assert spec["terminationGracePeriodSeconds"] >= drain_timeout + 15


def test_every_value_is_in_the_schema_and_used() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    texts = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    assert set(values) | {"global"} == set(schema["properties"])
    for name in values:
        assert re.search(rf"\.Values\.{name}\b", texts), name

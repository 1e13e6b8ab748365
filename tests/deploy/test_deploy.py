"""What deploy/ says is what the launcher takes and the server does, as far as text can show it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.paths import ROOT

DEPLOY = ROOT / "deploy"
PORTS = {"http": 8000}  # the gateway alone
STOP_MARGIN = 10  # seconds that the launcher may need beyond --drain_timeout: --exit_timeout and 3


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def pods() -> dict[str, dict[str, Any]]:
    deployment = documents("deployment.yaml")[0]
    group = documents("leaderworkerset.yaml")[0]["spec"]["leaderWorkerTemplate"]
    return {
        "deployment": deployment["spec"]["template"]["spec"],
        "leader": group["leaderTemplate"]["spec"],
        "worker": group["workerTemplate"]["spec"],
    }


def option(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def test_every_option_is_one_of_the_launcher(launcher_options: set[str]) -> None:
    used = [word for pod in pods().values() for word in pod["containers"][0]["args"]]
    used += documents("compose.yaml")[0]["services"]["triton"]["command"]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    used += re.findall(r'"(--[\w-]+)"', dockerfile)
    script = (DEPLOY / "trellis.slurm").read_text()
    used += re.findall(r"--[\w-]+", script[script.index("launch_triton_server.py") :])
    options = {word for word in used if word.startswith("--")}
    assert len(options) >= 4
    assert options <= launcher_options


@pytest.mark.parametrize("name", ["deployment", "leader", "worker"])
def test_a_pod_has_shared_memory_and_time_to_stop(name: str) -> None:
    pod = pods()[name]
    container = pod["containers"][0]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
    assert mounts["/triton_model_repo"] in volumes
    pause = int(
        container.get("lifecycle", {}).get("preStop", {"exec": {"command": [0, 0]}})["exec"][
            "command"
        ][1]
    )
    needed = int(option(container["args"], "--drain_timeout")) + pause + STOP_MARGIN
    assert pod["terminationGracePeriodSeconds"] >= needed


@pytest.mark.parametrize("name", ["deployment", "leader"])
def test_probes_ask_where_the_server_answers(name: str) -> None:
    container = pods()[name]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports.items() >= PORTS.items()
    assert not {8001, 8002} & set(ports.values())
    for probe, path in (
        ("startupProbe", "/v2/health/startup"),
        ("readinessProbe", "/v2/health/ready"),
        ("livenessProbe", "/v2/health/live"),
    ):
        asked = container[probe]["httpGet"]
        assert (asked["path"], ports[asked["port"]]) == (path, 8000)


def test_services_lead_to_pods_that_answer() -> None:
    deployment, service = documents("deployment.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    group, leader_service = documents("leaderworkerset.yaml")
    template = group["spec"]["leaderWorkerTemplate"]
    selector = leader_service["spec"]["selector"].items()
    assert selector <= template["leaderTemplate"]["metadata"]["labels"].items()
    assert not selector <= template["workerTemplate"]["metadata"]["labels"].items()
    for one in (service, leader_service):
        assert {port["name"]: port["port"] for port in one["spec"]["ports"]} == PORTS


def test_all_gpus_of_the_group_are_ranks() -> None:
    group = documents("leaderworkerset.yaml")[0]["spec"]["leaderWorkerTemplate"]
    for name in ("leader", "worker"):
        container = pods()[name]["containers"][0]
        gpus = container["resources"]["limits"]["nvidia.com/gpu"]
        assert int(option(container["args"], "--world_size")) == gpus * group["size"]


def test_the_image_is_made_of_the_wheel_of_what_exists_and_starts_the_launcher() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copies = [line.split()[1:-1] for line in lines if line.startswith("COPY")]
    sources = [source for copy in copies for source in copy]
    assert {"src/", "tokenizers/", "model_repo_src/"} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    (entry,) = [line for line in lines if line.startswith("ENTRYPOINT")]
    assert '["trellis", "launch", ' in entry


def test_compose_mounts_the_repository_and_has_shared_memory() -> None:
    service = documents("compose.yaml")[0]["services"]["triton"]
    assert any(volume.endswith(":/triton_model_repo:ro") for volume in service["volumes"])
    assert service["shm_size"] == "2gb"
    drain_timeout = int(option(service["command"], "--drain_timeout"))
    assert int(service["stop_grace_period"].rstrip("s")) >= drain_timeout + STOP_MARGIN
    assert (ROOT / "deploy" / service["build"]["context"]).resolve() == ROOT
    assert service["ports"] == ["127.0.0.1:8000:8000"]


def test_nothing_opens_grpc_or_metrics_to_others() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("EXPOSE")] == ["EXPOSE 8000"]
    files = [path for path in DEPLOY.iterdir() if path.is_file()]
    used = [word for path in files for word in path.read_text().split() if path.suffix != ""]
    assert not [word for word in used if word.startswith(('"--grpc', '"--metrics'))]


@pytest.mark.parametrize("name", ["deployment", "leader", "worker"])
def test_a_pod_has_no_rights_that_it_does_not_need(name: str) -> None:
    pod = pods()[name]
    (container,) = pod["containers"]
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == 1000
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {
        mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]
    }
    assert mounts == {"/triton_model_repo": True, "/dev/shm": False, "/tmp": False}
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_the_image_and_compose_run_as_a_user_who_is_not_root() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    users = [line for line in lines if line.startswith("USER")]
    assert users == ["USER 1000:1000"]
    assert lines.index(users[0]) > max(
        at for at, line in enumerate(lines) if line.startswith("RUN")
    )
    service = documents("compose.yaml")[0]["services"]["triton"]
    assert service["user"] == "1000:1000"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["ulimits"]["nofile"] >= 65536


def test_the_image_keeps_wheels_and_build_tools_of_no_layer() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    last = text[text.rindex("FROM ${BASE}") :]
    assert "COPY" not in last
    assert "--mount=type=bind,from=wheels,source=/wheels,target=/wheels" in last
    assert "--no-index --find-links /wheels" in last
    assert "--only-binary :all:" in text
    assert "gcc" not in re.sub(r"^#.*", "", last, flags=re.MULTILINE)


def test_compose_for_clients_from_outside_asks_for_keys_and_speaks_tls(
    launcher_options: set[str],
) -> None:
    (secure,) = documents("compose-secure.yaml")
    service = secure["services"]["triton"]
    words = service["command"]
    assert {word for word in words if word.startswith("--")} <= launcher_options
    for name, wanted in (
        ("--api-keys", "api_keys"),
        ("--tls-cert", "tls_cert"),
        ("--tls-key", "tls_key"),
    ):
        assert option(words, name) == f"/run/secrets/{wanted}"
    assert set(service["secrets"]) == set(secure["secrets"])
    assert service["healthcheck"]["test"][-1].startswith("https://")
    assert service["ports"] == ["8443:8000"]
    plain = documents("compose.yaml")[0]["services"]["triton"]
    assert option(words, "--drain_timeout") == option(plain["command"], "--drain_timeout")


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    unit = tmp_path / "trellis.service"
    text = (DEPLOY / "trellis.service").read_text()
    unit.write_text(text.replace("/opt/trellis/bin/trellis", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_starts_the_launcher_and_gives_it_time(launcher_options: set[str]) -> None:
    text = (DEPLOY / "trellis.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.*)", text, re.MULTILINE)
    words = command.split()
    assert {word for word in words if word.startswith("--")} <= launcher_options
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)", text, re.MULTILINE)
    assert int(stop) >= int(option(words, "--drain_timeout")) + STOP_MARGIN
    credentials = set(re.findall(r"^LoadCredential=(\w+):", text, re.MULTILINE))
    assert set(re.findall(r"CREDENTIALS_DIRECTORY}/(\w+)", command)) == credentials


def test_the_slurm_script_is_bash_and_runs_one_launcher_a_node() -> None:
    script = DEPLOY / "trellis.slurm"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert "#SBATCH --ntasks-per-node=1" in text
    assert "--kill-on-bad-exit=1" in text

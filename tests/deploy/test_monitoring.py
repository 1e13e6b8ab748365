"""The dashboard, the alert rules and their compose file, as far as no server is needed."""

import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from support.paths import ROOT
from trellis.contract.metrics import METRICS

FOLDER = ROOT / "deploy" / "monitoring"
NAMES = {metric.name: metric for metric in METRICS}
NAME = re.compile(r"trellis_\w+")
LABELS = re.compile(r"(\w+)(?:=~|!~|!=|=)\"")


def expressions() -> Iterator[str]:
    """Of the rules and of the dashboard."""
    for group in yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in dashboard["templating"]["list"]:
        yield from [variable["query"]] if variable["type"] == "query" else []


def test_all_that_is_asked_for_is_there() -> None:
    asked = set()
    for expression in expressions():
        for name in NAME.findall(expression):
            metric = NAMES.get(name) or NAMES[name.removesuffix("_bucket")]
            assert name in NAMES or metric.kind == "histogram", name
            asked.add(metric.name)
        for label in LABELS.findall(expression):
            known = {label for metric in METRICS for label in metric.labels} | {"job"}
            known |= {"request_type", "kv_cache_block_type"}  # of the C++ backend's own
            assert label in known, expression
    assert len(asked) >= 20


def test_a_counter_is_only_read_as_a_rate() -> None:
    for expression in expressions():
        for name in NAME.findall(expression):
            if name in NAMES and NAMES[name].kind == "counter" and "label_values" not in expression:
                assert re.search(rf"rate\({name}\b", expression), expression


def test_the_dashboard_is_what_its_script_writes() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="needs the package grafana-foundation-sdk")
    script = runpy.run_path(str(FOLDER / "dashboard.py"))
    assert script["build"]() == (FOLDER / "dashboard.json").read_text()


def test_grafanas_own_types_read_the_dashboard_back() -> None:
    models = pytest.importorskip(
        "grafana_foundation_sdk.models.dashboard",
        reason="needs the package grafana-foundation-sdk",
    )
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins

    register_default_plugins()
    text = (FOLDER / "dashboard.json").read_text()
    read = models.Dashboard.from_json(json.loads(text))
    assert json.loads(JSONEncoder().encode(read)) == json.loads(text)
    charts = [panel for panel in read.panels if panel.type_val == "timeseries"]
    assert len(charts) == 18
    assert len({(panel.grid_pos.x, panel.grid_pos.y) for panel in charts}) == 18, "one on another"


@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "prometheus.yaml"],
        ["check", "rules", "rules.yaml"],
        ["test", "rules", "rules_test.yaml"],
    ],
)
def test_promtool_takes_the_rules_and_their_tests(command: list[str]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool: sudo apt-get install -y prometheus")
    done = subprocess.run([promtool, *command], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_both_ways() -> None:
    rules = yaml.safe_load((FOLDER / "rules.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    tests = yaml.safe_load((FOLDER / "rules_test.yaml").read_text())["tests"]
    fired = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fired == alerts


def test_both_services_listen_on_loopback_and_are_pinned() -> None:
    services: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    for service in services.values():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])
        assert "ports" not in service
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (FOLDER / source).is_file()
    scraped = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]
    assert scraped[0]["static_configs"][0]["targets"] == ["127.0.0.1:8002"]

"""The gateway's lines: one a request, as text or JSON, with nothing of what was asked."""

import json
import logging
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.fake_triton_http import FakeTriton
from support.gateway_process import listens
from support.gateway_wire import ENSEMBLE, Wire, get, post, wait_for
from trellis.gateway.logs import MEMBERS, AccessLog, JsonLines, TextLines
from trellis.gateway.metrics.record import Record
from trellis.server.gateway_settings import IMPORTED_FROM, GatewaySettings
from trellis.server.ports import free_ports

SECRET = "the secret prompt"


def lines_of(folder: Path, form: str, **more: Any) -> list[str]:
    """What a gateway writes for a probe, bad ids and bodies, an answer, and a path that is none."""
    (port,) = free_ports(1)
    with FakeTriton() as triton, (folder / "log").open("wb") as output:
        triton.error, triton.ready = "out of order", True
        settings = GatewaySettings(
            "127.0.0.1", port, triton.port, os.getpid(), 5.0, log_format=form, **more
        )
        process = subprocess.Popen(settings.command(), cwd=IMPORTED_FROM, stderr=output)
        try:
            wait_for(lambda: listens(port))
            with Wire(port) as wire:
                for _ in range(3):
                    wire.send(get("/v2/health/ready")).answer()
                wire.send(get(ENSEMBLE).replace(b"\r\n", b"\r\nX-Request-Id: a b\r\n", 1)).answer()
                generate = f"{ENSEMBLE}/generate"
                wire.send(post({"text_input": SECRET}, target=generate)).answer()
                wire.send(post({"text_input": 7}, target=generate)).answer()
                wire.send(get("/nothing")).answer()
        finally:
            process.terminate()
            process.wait(20)
    return (folder / "log").read_text().splitlines()


def test_a_line_of_json_says_how_a_request_went(tmp_path: Path) -> None:
    no_id, asked, bad, none = (json.loads(line) for line in lines_of(tmp_path, "json")[-4:])
    assert no_id["message"] == f"GET {ENSEMBLE} 400"
    assert (no_id["rejected"], len(no_id["id"])) == ("invalid_request", 32)
    assert asked["message"] == f"POST {ENSEMBLE}/generate 400"
    assert (asked["logger"], asked["level"]) == ("trellis.access", "info")
    assert (asked["model"], asked["client"]) == ("ensemble", "127.0.0.1")
    assert asked["rejected"] == "invalid_request"
    assert 0 < asked["seconds"] < 30
    assert len({line["id"] for line in (asked, bad, none)}) == 3
    assert (bad["rejected"], none["rejected"]) == ("invalid_request", "not_found")
    assert "model" not in none
    assert SECRET not in (tmp_path / "log").read_text()


def test_a_line_of_text_has_the_same(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, "text")
    assert f"trellis.access: POST {ENSEMBLE}/generate 400 id=" in lines[-3]
    assert " rejected=not_found seconds=" in lines[-1]
    assert not any(SECRET in line for line in lines)
    assert sum("/v2/health" in line for line in lines) == 1


def test_a_prompt_is_in_the_log_where_that_is_asked_for(tmp_path: Path) -> None:
    asked = json.loads(lines_of(tmp_path, "json", log_prompts=True)[-3])
    assert asked["prompt"] == SECRET


def test_none_is_no_line(tmp_path: Path) -> None:
    assert not [line for line in lines_of(tmp_path, "none") if "POST" in line]


@pytest.mark.parametrize("form", [TextLines(), JsonLines()])
def test_what_is_in_a_line_cannot_make_another(form: logging.Formatter) -> None:
    record = logging.makeLogRecord({"name": "x", "msg": "m", MEMBERS: {"prompt": "a\nb\u2028c"}})
    line = form.format(record)
    assert "\n" not in line


def test_a_probe_has_a_line_where_its_status_changes(caplog: pytest.LogCaptureFixture) -> None:
    record, log = Record("1f"), AccessLog(False)
    record.probes = True
    scope = {"path": "/v2/health/ready", "method": "GET", "client": None}
    with caplog.at_level(logging.INFO, "trellis.access"):
        for record.status in (503, 503, 200, 200, 200, 503):
            log(scope, record)
    said = [line.getMessage()[-3:] for line in caplog.records]
    assert said == ["503", "200", "503"]

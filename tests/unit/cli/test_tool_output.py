"""What the tools print can be read whole: at 80 columns, in a pipe, and beside Triton's log."""

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from support.paths import ROOT
from trellis.preflight.check import Check, show, verdict
from trellis.repository.template import placeholders_in
from trellis.server.shown_log import ShownLog

TEMPLATES = ROOT / "model_repo_src"
TOOLS = (
    "assemble", "build_engine", "check", "client", "demo", "fill_template", "launch_triton_server",
    "lay_out_demo", "serve_docker", "soak",
)  # fmt: skip
MODELS = ("preprocessing", "tensorrt_llm", "postprocessing", "ensemble")


def printed(tool: str, *arguments: str, columns: str = "") -> str:
    """The output of a tool in a pipe, or at so many columns."""
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environment |= {"COLUMNS": columns} if columns else {}
    command = [sys.executable, str(ROOT / "tools" / f"{tool}.py"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("columns", ["", "80"])
@pytest.mark.parametrize("tool", TOOLS)
def test_help_cuts_no_name_short(tool: str, columns: str) -> None:
    assert "…" not in printed(tool, "--help", columns=columns)


@pytest.mark.parametrize("columns", ["", "80"])
@pytest.mark.parametrize("model", MODELS)
def test_list_cuts_no_name_short(model: str, columns: str) -> None:
    file = TEMPLATES / model / "config.pbtxt"
    output = printed("fill_template", "--list", str(file), columns=columns)
    assert "…" not in output
    for name in placeholders_in(file.read_text()):
        assert f" {name} " in output


@pytest.mark.parametrize("model", MODELS)
def test_a_piped_list_has_a_line_for_each_placeholder(model: str) -> None:
    file = TEMPLATES / model / "config.pbtxt"
    lines = printed("fill_template", "--list", str(file)).splitlines()
    assert len(lines) == len(placeholders_in(file.read_text())) + 4  # the table's own


def test_the_checks_end_with_one_line_of_verdict() -> None:
    good, bad = Check("ports", "8000", "free", True), Check("GPUs", "none", "1", False)
    assert verdict([good, good]) == "ok: 2 checks passed, this will run here"
    assert verdict([good, bad, bad]) == "NO: 2 of 3 checks failed: GPUs"
    output = io.StringIO()
    show([good, bad], Console(width=60, file=output))
    assert output.getvalue().splitlines()[-1] == "NO: 1 of 2 checks failed: GPUs"


def test_the_port_behind_the_front_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with ShownLog() as log:
        log.url = "http://127.0.0.1:8000"
        log.output.write(b'I1 http_server.cc:1] "Started HTTPService at 127.0.0.1:24805"\nmore\n')
    assert capfd.readouterr().err == (
        'I1 http_server.cc:1] "Started HTTPService behind the gateway, which is asked at'
        ' http://127.0.0.1:8000"\nmore\n'
    )


def test_without_a_front_the_log_is_triton_s_own(capfd: pytest.CaptureFixture[str]) -> None:
    with ShownLog() as log:
        log.output.write(b'"Started HTTPService at 127.0.0.1:8000"\n')
    assert capfd.readouterr().err == '"Started HTTPService at 127.0.0.1:8000"\n'

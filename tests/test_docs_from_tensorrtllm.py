"""What docs/from-tensorrtllm.md names is there."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from support.paths import ROOT
from trellis.contract.placeholder import WITHOUT_EFFECT, known_placeholders
from trellis.repository.model_config import parse_config

PAGE = (ROOT / "docs" / "from-tensorrtllm.md").read_text(encoding="utf-8")
FLAGS = sorted({*re.findall(r"`(--[a-zA-Z_-]+)[^`]*`", PAGE)} - {"--"})


@pytest.fixture(scope="module")
def help_text() -> str:
    command = [sys.executable, str(ROOT / "tools" / "launch_triton_server.py"), "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("flag", FLAGS)
def test_the_launcher_takes_every_flag_that_is_named(help_text: str, flag: str) -> None:
    assert re.search(rf"{flag}\b", help_text)


def test_every_setting_that_is_named_can_be_set() -> None:
    named = re.findall(r"SET=([a-z_:0-9.,]+)", PAGE)
    keys = {pair.partition(":")[0] for values in named for pair in values.split(",")}
    assert keys
    assert keys <= known_placeholders().keys()
    assert "postprocessing_instance_count" in WITHOUT_EFFECT


def test_every_input_of_the_commands_is_one_of_the_ensemble() -> None:
    config = parse_config(
        (ROOT / "model_repo_src" / "ensemble" / "config.pbtxt")
        .read_text()
        .replace("${triton_max_batch_size}", "8")
    )
    inputs = {tensor.name for tensor in config.input}
    bodies = [
        words[words.index("-d") + 1]
        for line in PAGE.splitlines()
        if line.startswith("curl ")
        for words in [shlex.split(line)]
    ]
    assert len(bodies) == 3
    for body in bodies:
        assert json.loads(body).keys() <= inputs


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / link).is_file()
    assert "docs/from-tensorrtllm.md" in (ROOT / "README.md").read_text(encoding="utf-8")

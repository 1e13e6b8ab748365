# SPDX-License-Identifier: Apache-2.0
"""What `make check` says of a repository for vLLM, with vLLM itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.cli import run
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble

LOOKED_AT = ("packages", "engine arguments", "architecture", "world size", "memory")


class Place:
    """Repositories of the checkpoint with something changed; the weights stay one file."""

    def __init__(self, folder: Path, checkpoint: Path, tokenizer: Path) -> None:
        self.folder, self.checkpoint, self.tokenizer = folder, checkpoint, tokenizer

    def checked(self, engine_yaml: str = "", **changes: Any) -> dict[str, dict[str, Any]]:
        engine = self.folder / "engine"
        engine.mkdir()
        config = json.loads((self.checkpoint / "config.json").read_text())
        (engine / "config.json").write_text(json.dumps(config | changes))
        (engine / "engine.yaml").write_text(engine_yaml)
        (engine / "model.safetensors").symlink_to(self.checkpoint / "model.safetensors")
        repository = self.folder / "triton_model_repo"
        settings = {"triton_max_batch_size": "16"}
        assemble(
            Plan(read_engine(engine, "vllm"), "gpt2", self.tokenizer, settings=settings), repository
        )
        checks = json.loads(run("check", "--model_repo", repository, "--json").output)["checks"]
        return {check["what"]: check for check in checks if check["what"] in LOOKED_AT}


@pytest.fixture
def place(tmp_path: Path, checkpoint: Path, demo_engine: tuple[Path, Path]) -> Place:
    return Place(tmp_path, checkpoint, demo_engine[1])


def test_what_vllm_serves_passes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
    found = place.checked()
    assert list(found) == list(LOOKED_AT)
    assert all(check["ok"] and not check["remedy"] for check in found.values())
    assert "KV cache 2.00 (46592 tokens of 45 KiB)" in found["memory"]["needed"]


def test_an_architecture_and_an_argument_that_vllm_lacks_are_named(place: Place) -> None:
    found = place.checked("enforce_eagr: true\n", architectures=["LlamaForCausalLMs"])
    architecture, arguments = found["architecture"], found["engine arguments"]
    assert (architecture["ok"], arguments["ok"]) == (False, False)
    assert "nearest: LlamaForCausalLM, " in architecture["remedy"]
    assert "ModelRegistry" in architecture["remedy"]
    assert "enforce_eagr; did you mean enforce_eager?" in arguments["found"]


def test_what_the_library_transformers_has_is_served_by_its_code(place: Place) -> None:
    found = place.checked(architectures=["HeliumForCausalLM"])["architecture"]
    assert found["ok"]
    assert "the code of the library transformers" in found["remedy"]

# SPDX-License-Identifier: Apache-2.0
"""SmolLM2-135M as a checkpoint, and a repository of it behind vLLM."""

from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="needs vLLM: `make setup-vllm`", exc_type=ImportError)

from trellis.demo.engine import find_demo_model
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.json and model.safetensors in float32; vLLM compiles nothing, which takes minutes."""
    from ranks.checkpoints import dequantise

    folder = tmp_path_factory.mktemp("vllm") / "checkpoint"
    dequantise(find_demo_model(), folder)
    (folder / "engine.yaml").write_text("enforce_eager: true\n")
    return folder


@pytest.fixture(scope="session")
def repo(
    checkpoint: Path, demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What `make repo BACKEND=vllm` makes of it."""
    target = tmp_path_factory.mktemp("vllm-repo") / "triton_model_repo"
    settings = {"triton_max_batch_size": "16", "max_tokens_in_paged_kv_cache": "16384"}
    assemble(
        Plan(read_engine(checkpoint, "vllm"), "gpt2", demo_engine[1], settings=settings), target
    )
    return target

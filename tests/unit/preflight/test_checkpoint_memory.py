"""What preflight says of a checkpoint's GPUs: the estimate, against a measured one, and misfits."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from support.cli import failing, run
from trellis.engine_files.checkpoint import CheckpointError, read_checkpoint
from trellis.engine_files.engine_folder import read_engine
from trellis.engine_files.safetensors_headers import SafetensorsError, read_tensors
from trellis.preflight.gpus import visible_gpus
from trellis.preflight.memory import GIB, CacheOptions, estimate_checkpoint
from trellis.repository.assemble import Plan, assemble
from trellis.server.ports import free_ports

MIB = 2**20
LLAMA_7B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "dtype": "bfloat16",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
}
# As many numbers as in all of its layers, in one matrix.
WEIGHTS = {
    "model.embed_tokens.weight": [32000, 4096],
    "model.layers.weight": [32 * (4 * 4096 + 3 * 11008), 4096],
    "lm_head.weight": [32000, 4096],
}


def write_checkpoint(folder: Path, cut: int = 0, **config: Any) -> Path:
    """Config and weights of a 7B: a whole header, and of the numbers only the file's length."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(LLAMA_7B | config))
    header, end = {}, 0
    for name, shape in WEIGHTS.items():
        size = shape[0] * shape[1] * 2
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(file, 8 + len(text) + end - cut)
    return folder


@pytest.mark.parametrize(("ranks", "weights"), [(1, 12.551), (2, 6.276)], ids=["one rank", "two"])
def test_weights_are_split_over_ranks(tmp_path: Path, ranks: int, weights: float) -> None:
    checkpoint = read_checkpoint(write_checkpoint(tmp_path / "out"))
    assert checkpoint.weight_bytes(ranks) / GIB == pytest.approx(weights, rel=1e-3)
    assert checkpoint.weight_bytes(ranks, "float32") == 2 * checkpoint.weight_bytes(ranks)


MEASURED = {  # benchmarks/results/gpu_ranks.md, 64 short requests: MiB, ranks, attention; GiB held
    "H100, sdpa": (81559, 1, "sdpa", 115_648, 70.47),
    "H200, sdpa": (143771, 1, "sdpa", 221_952, 122.58),
    "two H200, sdpa": (143771, 2, "sdpa", 435_520, 117.49),
    "H100": (81559, 1, "", 117_888, 71.33),
    "H200": (143771, 1, "", 226_240, 124.24),
    "two H200": (143771, 2, "", 451_584, 120.58),
}


@pytest.mark.parametrize("measured", MEASURED.values(), ids=MEASURED.keys())
def test_the_measured_gpus_are_met_within_two_percent(
    tmp_path: Path, measured: tuple[int, int, str, int, float]
) -> None:
    memory, ranks, attention, tokens, held = measured
    checkpoint = read_checkpoint(write_checkpoint(tmp_path / "out"))
    options = CacheOptions(max_batch_size=64, attention=attention)
    estimate = estimate_checkpoint(checkpoint, ranks, memory * MIB, options)
    assert estimate.kv_tokens == pytest.approx(tokens, rel=0.02)
    assert estimate.held / GIB == pytest.approx(held, rel=0.02)
    assert estimate.held < held * GIB < estimate.held + estimate.steps


def test_a_cache_of_a_given_size_is_held_and_no_more(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_checkpoint(tmp_path / "out"))
    small = estimate_checkpoint(checkpoint, 1, 80 * GIB, CacheOptions(max_tokens=4096))
    assert small.kv_tokens == 4096
    assert small.kv_cache == (4096 + 128) * 512 * 1024  # with the library's two spare pages
    assert small.held < 20 * GIB


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
    checkpoint = read_checkpoint(write_checkpoint(tmp_path / "out", cut=7))
    with pytest.raises(CheckpointError, match=r"model\.safetensors has \d+ bytes of \d+; copy"):
        checkpoint.weight_bytes()


# make check


class Place:
    """A repository of the checkpoint, on a machine with the GPUs that a test says."""

    def __init__(self, folder: Path, tokenizer: Path) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        self.repository = folder / "triton_model_repo"

    def make(self, cut: int = 0, **values: str) -> "Place":
        engine = read_engine(write_checkpoint(self.folder / "llama", cut))
        assemble(Plan(engine, "llama", self.tokenizer, settings=values), self.repository)
        return self

    def checked(
        self, *gpus: int, used: int = 0, ranks: int = 1, nodes: str = ""
    ) -> list[dict[str, Any]]:
        """The checks that fail with GPUs of so many GiB; the engine's packages are not here."""
        tools = self.folder / "bin"
        tools.mkdir(exist_ok=True)
        lines = "".join(f"echo 'A GPU, {size * 1024}, {used * 1024}'\n" for size in gpus)
        (tools / "nvidia-smi").write_text("#!/bin/sh\n" + lines)
        (tools / "nvidia-smi").chmod(0o755)
        numbers = map(str, free_ports(3))
        names = ("http_port", "grpc_port", "metrics_port")
        ports = [f"--{name}={number}" for name, number in zip(names, numbers, strict=True)]
        env = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""}
        options = [f"--world_size={ranks}", f"--nodes={nodes}", *ports]
        found = failing(self.repository, *options, env=env)
        return [check for check in found if check["what"] != "packages"]


@pytest.fixture
def place(tmp_path: Path, llama_folder: Path) -> Place:
    return Place(tmp_path, llama_folder)


@pytest.mark.parametrize(("gpus", "ranks"), [((), 1), ((), 2), ((24,), 1), ((80, 80), 2)])
def test_what_fits_passes_and_a_cpu_needs_no_gpu(
    place: Place, gpus: tuple[int, ...], ranks: int
) -> None:
    assert place.make().checked(*gpus, ranks=ranks) == []


def test_a_gpu_smaller_than_the_weights(place: Place) -> None:
    (found,) = place.make().checked(12)
    assert (found["what"], found["found"]) == ("GPU memory", "12.00 GiB free")
    assert found["needed"].startswith("weights 12.55 + ")
    assert "more ranks than 1 (--world_size)" in found["remedy"]
    assert place.checked(12, 12, ranks=2) == []


def test_a_wide_dtype_is_named(place: Place) -> None:
    (found,) = place.make(dtype="float32").checked(24)
    assert found["needed"].startswith("weights 25.10 + ")
    assert found["remedy"].endswith("dtype:bfloat16")


def test_a_gpu_that_others_use(place: Place) -> None:
    (found,) = place.make().checked(80, used=70)
    assert (found["what"], found["found"]) == ("GPU memory", "10.00 GiB free")


def test_more_cache_asked_for_than_there_is_room(place: Place) -> None:
    place.make(max_tokens_in_paged_kv_cache="60000", kv_cache_free_gpu_mem_fraction="0.5")
    (found,) = place.checked(40)
    advice, _, other = found["remedy"].partition(", or ")
    assert advice.startswith("lower max_tokens_in_paged_kv_cache (60000) to ")
    assert other == "raise kv_cache_free_gpu_mem_fraction (0.5)"
    place.make(
        max_tokens_in_paged_kv_cache=advice.split()[-1], kv_cache_free_gpu_mem_fraction="0.5"
    )
    assert place.checked(40) == []


def test_a_share_too_small_for_any_cache(place: Place) -> None:
    (found,) = place.make(kv_cache_free_gpu_mem_fraction="0.001").checked(80)
    assert found["remedy"].endswith("raise kv_cache_free_gpu_mem_fraction (0.001)")


def test_fewer_gpus_than_ranks(place: Place) -> None:
    (found,) = place.make().checked(80, ranks=2)
    assert (found["what"], found["found"]) == ("GPUs", "1: A GPU")
    assert found["needed"] == "2, one a rank"


def test_ranks_of_other_hosts_need_no_gpu_here(place: Place) -> None:
    assert place.make().checked(80, ranks=2, nodes="localhost:1,192.0.2.7:1") == []
    assert place.checked(8, ranks=2, nodes="192.0.2.7:2") == []
    (found,) = place.checked(80, ranks=4, nodes="localhost:2,192.0.2.7:2")
    assert found["needed"] == "2, one a rank of this host (4 in all)"


def test_gpus_that_are_not_to_be_used_do_not_count(place: Place) -> None:
    (found,) = place.make(gpu_device_ids="1").checked(80, 80, ranks=2)
    assert found["found"] == "1: A GPU"


def test_weights_cut_short_fail_before_anything_is_launched(place: Place) -> None:
    (found,) = place.make(cut=1).checked(80)
    assert (found["what"], found["needed"]) == ("GPU memory", "readable weights")
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


def test_the_table_shows_the_estimate(place: Place) -> None:
    place.make().checked(80)
    env = {"PATH": f"{place.folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "240"}
    done = run("check", "--model_repo", place.repository, env=env)
    assert "weights 12.55 + runtime 0.75" in done.output

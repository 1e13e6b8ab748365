# SPDX-License-Identifier: Apache-2.0
"""Engine folders from strangers: an error that names the file, never a traceback or a full disk."""

import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.fake_engines import RELEASES, write_engine
from support.wrong_types import with_wrong
from trellis.bounded_files import CONFIG_BYTES
from trellis.engine_files.checkpoint import CheckpointError, read_checkpoint
from trellis.engine_files.engine_folder import CHECKPOINT_ENGINES, read_engine
from trellis.engine_files.parallel import fitting
from trellis.errors import TrellisError

CHECKPOINT: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 8192,
    "vocab_size": 49152,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "head_dim": 64,
    "dtype": "bfloat16",
    "torch_dtype": "bfloat16",
    "is_encoder_decoder": False,
    "intermediate_size": 1536,
    "moe_intermediate_size": 512,
    "kv_lora_rank": 64,
    "quantization_config": {
        "group_size": 128,
        "weight_block_size": [128, 128],
        "config_groups": {"group_0": {"weights": {"group_size": 128}}},
    },
}
NESTED = {"architectures": ["X"], "text_config": CHECKPOINT}
INDEX = {"metadata": {"total_size": 1}, "weight_map": {"a": "model.safetensors"}}
HEADER = {"__metadata__": {}, "a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}


def trtllm(release: str) -> dict[str, Any]:
    """The config.json of an engine."""
    with tempfile.TemporaryDirectory() as folder:
        write_engine(Path(folder), release)
        found: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text())
    return found


OLD, NEW = trtllm("0.5.0"), trtllm(RELEASES[-1])


def safetensors(header: Any) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * 12


def read_or_say(folder: Path) -> str:
    """What is said of a folder; '' if it can be served. All else that is raised fails the test."""
    try:
        engine = read_engine(folder)
        if engine.engine_type in CHECKPOINT_ENGINES:
            found = read_checkpoint(folder)
            found.weight_bytes(2)
            assert (1, 1) in fitting(found.config, 8)
        assert engine.max_input_len is None or type(engine.max_input_len) is int
        assert engine.vocab_size is None or type(engine.vocab_size) is int
        str(engine.trtllm)
    except TrellisError as error:
        return str(error)
    return ""


def checkpoint(folder: Path, config: Any, index: Any = INDEX, header: Any = HEADER) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").write_bytes(safetensors(header))
    return folder


def said_is_short(said: str, folder: Path) -> bool:
    return len(said.replace(str(folder), "")) < 1500


@pytest.mark.parametrize("document", [CHECKPOINT, NESTED], ids=["flat", "nested"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_wrong_type_in_a_checkpoints_config_is_named(
    document: dict[str, Any], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = data.draw(with_wrong(document))
        said = read_or_say(checkpoint(Path(folder), config))
        assert said == "" or folder in said
        assert said_is_short(said, Path(folder))


@given(index=with_wrong(INDEX), header=with_wrong(HEADER))
@settings(max_examples=60, deadline=None)
def test_a_wrong_type_in_the_files_of_weights_is_named(index: Any, header: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        said = read_or_say(checkpoint(Path(folder), CHECKPOINT, index, header))
        assert said == "" or folder in said


@pytest.mark.parametrize("document", [OLD, NEW], ids=["0.5.0", RELEASES[-1]])
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_wrong_type_in_an_engines_config_is_named(
    document: dict[str, Any], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_engine(Path(folder), "0.5.0" if document is OLD else RELEASES[-1])
        config = data.draw(with_wrong(document))
        (Path(folder) / "config.json").write_text(json.dumps(config))
        assert said_is_short(read_or_say(Path(folder)), Path(folder))


@given(config=with_wrong(CHECKPOINT))
@settings(max_examples=40, deadline=None)
def test_a_wrong_type_beside_an_openvino_model_is_named(config: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "openvino_model.xml").write_text("<net/>")
        (Path(folder) / "config.json").write_text(json.dumps(config))
        said = read_or_say(Path(folder))
        assert said == "" or folder in said


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "vocab_size",
            "49152",
            "config.json: vocab_size: Input should be a valid integer, not '49",
        ),
        (
            "num_attention_heads",
            [9],
            "num_attention_heads: Input should be a valid integer, not [9]",
        ),
        ("hidden_size", True, "hidden_size: Input should be a valid integer, not True"),
        ("num_hidden_layers", 0, "num_hidden_layers: Input should be greater than or equal to 1"),
        ("dtype", {"a": 1}, "dtype: Input should be a valid string"),
        ("max_position_embeddings", 10**18, "less than or equal to 2147483647, not 1000000000"),
    ],
)
def test_the_error_says_key_and_value_and_remedy(
    tmp_path: Path, key: str, value: Any, message: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(checkpoint(tmp_path, {**CHECKPOINT, key: value}))
    assert message in str(caught.value)
    assert str(caught.value).endswith("correct it, or copy the file again")


def sparse(path: Path, size: int) -> None:
    """A file of so many zeros that take no room."""
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_fifty_gigabytes_are_not_read(tmp_path: Path, name: str) -> None:
    checkpoint(tmp_path, CHECKPOINT)
    sparse(tmp_path / name, 50 * 10**9)
    assert f"{name}: has 47,684 MiB, and no such file has more than 64" in read_or_say(tmp_path)
    assert CONFIG_BYTES == 64 << 20


def test_fifty_gigabytes_beside_an_engine_are_not_read(tmp_path: Path) -> None:
    write_engine(tmp_path, "0.9.0")
    sparse(tmp_path / "config.json", 50 * 10**9)
    assert "config.json: has 47,684 MiB" in read_or_say(tmp_path)


def test_what_a_pipe_would_say_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors(HEADER))
    os.mkfifo(tmp_path / "config.json")
    assert "found no engine" in read_or_say(tmp_path)
    with pytest.raises(CheckpointError, match="is no regular file"):
        read_checkpoint(tmp_path)


def test_brackets_a_million_deep_are_no_traceback(tmp_path: Path) -> None:
    checkpoint(tmp_path, CHECKPOINT)
    (tmp_path / "config.json").write_bytes(b"[" * 1_000_000)
    assert "config.json: not readable as JSON: " in read_or_say(tmp_path)

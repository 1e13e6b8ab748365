# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters against the checkpoint that they are for."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.lora_adapters import write_adapter
from trellis.engine_files.lora_adapter import AdapterError, check_adapter

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
BASE = {f"{Q}.weight": (32, 16), f"{DOWN}.weight": (16, 48), "model.norm.weight": (16,)}


def test_an_adapter_that_fits_is_two_files(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", {Q: (32, 16), DOWN: (16, 48)})
    files = check_adapter(folder, BASE)
    assert [file.name for file in files] == ["adapter_config.json", "adapter_model.safetensors"]


def test_a_weight_is_known_by_its_layer_whatever_is_in_front(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", {Q: (32, 16)})
    check_adapter(folder, {f"language_model.{Q}.weight": (32, 16)})


def test_a_quantized_weight_is_not_measured(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", {Q: (32, 16)})
    check_adapter(folder, {f"{Q}.qweight": (4, 16)})


@pytest.mark.parametrize(
    ("shapes", "config", "message"),
    [
        ({Q: (32, 17)}, {}, "which do not fit rank 4 and a weight of [32, 16]"),
        ({Q: (31, 16)}, {}, "another model's"),
        ({Q: (32, 16)}, {"r": 3}, "do not fit rank 3"),
        ({"model.layers.7.self_attn.q_proj": (32, 16)}, {}, "is no part of this checkpoint"),
        ({}, {}, "holds other weights than pairs of lora_A and lora_B"),
        ({Q: (32, 16)}, {"r": "four"}, "r: Input should be a valid integer"),
        ({Q: (32, 16)}, {"r": 0}, "adapter_config.json: r: "),
        ({Q: (32, 16)}, {"peft_type": "IA3"}, "peft_type is IA3, which no engine serves"),
        ({Q: (32, 16)}, {"bias": "all"}, "bias is all"),
        ({Q: (32, 16)}, {"use_dora": True}, "use_dora is True"),
        ({Q: (32, 16)}, {"modules_to_save": ["lm_head"]}, "modules_to_save is ['lm_head']"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, shapes: dict[str, tuple[int, int]], config: dict[str, Any], message: str
) -> None:
    folder = write_adapter(tmp_path / "a", shapes, **config)
    with pytest.raises(AdapterError) as error:
        check_adapter(folder, BASE)
    assert message in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_adapter(tmp_path / "a", {Q: (32, 16)})
    (folder / name).unlink()
    with pytest.raises(AdapterError, match=f"no {name}; name a folder that PEFT has written"):
        check_adapter(folder, BASE)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff" * 20, json.dumps({"r": 4}).encode()[:-1]])
def test_garbage_is_no_adapter(tmp_path: Path, data: bytes) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        folder = write_adapter(tmp_path / name, {Q: (32, 16)})
        (folder / name).write_bytes(data)
        with pytest.raises(AdapterError, match=str(folder)):
            check_adapter(folder, BASE)

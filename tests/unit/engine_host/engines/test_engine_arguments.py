# SPDX-License-Identifier: Apache-2.0
"""`engine.yaml`: what may stand there, and what a checkpoint's own dtype is."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from trellis.engine_host.engines.engine_arguments import declared_dtype, read_arguments

KNOWN = {"model", "max_num_seqs", "enforce_eager", "seed"}
OURS = {"model": "ENGINE=", "max_num_seqs": "SET=triton_max_batch_size:N"}


def read(folder: Path, text: str) -> dict[str, Any]:
    file = folder / "engine.yaml"
    file.write_text(text)
    return read_arguments(file, KNOWN, OURS, "vLLM")


def test_without_a_file_nothing_is_added(tmp_path: Path) -> None:
    assert read_arguments(tmp_path / "engine.yaml", KNOWN, OURS, "vLLM") == {}


def test_what_the_library_has_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, "enforce_eager: true\nseed: 3\n") == {"enforce_eager": True, "seed": 3}
    assert read(tmp_path, "# nothing yet\n") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("enforce_eagr: true", "vLLM has no argument enforce_eagr; did you mean enforce_eager?"),
        ("model: other", "engine.yaml: model is set by ENGINE=; leave it out"),
        ("max_num_seqs: 3", "max_num_seqs is set by SET=triton_max_batch_size:N"),
        ("7: 3", "vLLM has no argument 7"),
        ("- enforce_eager", "not a table"),
        ("a: [", "engine.yaml: not YAML"),
        (f"{'x' * 90}: 1", f"no argument {'x' * 64}"),
    ],
)
def test_an_argument_that_cannot_be_there_is_rejected_by_name(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read(tmp_path, text)
    assert "x" * 65 not in str(error.value)


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({"torch_dtype": "float16"}, "float16"),
        ({"dtype": "float32", "torch_dtype": "float16"}, "float32"),
        ({"text_config": {"dtype": "bfloat16"}}, "bfloat16"),
        ({}, "auto"),
    ],
)
def test_a_checkpoint_keeps_the_dtype_that_it_declares(
    tmp_path: Path, config: dict[str, Any], dtype: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert declared_dtype(tmp_path) == dtype

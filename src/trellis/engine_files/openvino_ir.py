# SPDX-License-Identifier: Apache-2.0
"""The weights in an OpenVINO IR, by a checkpoint's names.

The library's exporters name the multiplication by a weight after the module that it was in
PyTorch, `__module.model.layers.0.mlp.up_proj/ov_ext::linear/MatMul`; the library finds the weights
that a LoRA adapter changes by these names.
"""

from pathlib import Path
from xml.etree import ElementTree

from trellis.errors import TrellisError
from trellis.files import read_json

MODEL, WEIGHTS = "openvino_model.xml", "openvino_model.bin"
TOKENIZER = "openvino_tokenizer.xml"
LOGITS, HIDDEN = 'names="logits"', 'names="last_hidden_state"'
MODULE = "__module."
WEIGHT_PORT = "1"
POOLINGS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "last": "pooling_mode_lasttoken",
}


class IrError(TrellisError, ValueError):
    """An IR that cannot be read; the message names the file."""


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights that are multiplied by, [rows, columns], by the checkpoint's name.

    Raises IrError for a file that is missing or no IR.
    """
    file = folder / MODEL
    shapes = {}
    try:
        for _, layer in ElementTree.iterparse(file, events=("end",)):
            if layer.tag == "layer":
                name = layer.get("name", "")
                if layer.get("type") == "MatMul" and name.startswith(MODULE):
                    module = name.removeprefix(MODULE).partition("/")[0]
                    shapes[f"{module}.weight"] = _weight(layer)
                layer.clear()
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise IrError(f"{file}: {error}") from error
    return shapes


def makes_embeddings(folder: Path) -> bool:
    """Whether a model gives hidden states, and no logits. Raises IrError if it cannot be read."""
    file = folder / MODEL
    hidden = False
    try:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if LOGITS in line:
                    return False
                hidden = hidden or HIDDEN in line
    except (OSError, ValueError) as error:
        raise IrError(f"{file}: {error}") from error
    return hidden


def read_pooling(folder: Path) -> str:
    """`mean`, `cls` or `last`, as sentence-transformers writes it; '' where it does not say."""
    file = folder / "1_Pooling" / "config.json"
    try:
        said = read_json(file)
    except (OSError, ValueError):
        return ""
    return next((name for name, key in POOLINGS.items() if said.get(key) is True), "")


def _weight(layer: ElementTree.Element) -> tuple[int, ...]:
    """Of the second input, [rows, columns]."""
    dims = layer.findall(f"./input/port[@id='{WEIGHT_PORT}']/dim")
    shape = tuple(int(dim.text or 0) for dim in dims)
    data = layer.find("data")
    transposed = data is not None and data.get("transpose_b") == "true"
    return shape if transposed else shape[::-1]

# SPDX-License-Identifier: Apache-2.0
"""The weights in an OpenVINO IR, by a checkpoint's names.

The library's exporters name the multiplication by a weight after the module that it was in
PyTorch, `__module.model.layers.0.mlp.up_proj/ov_ext::linear/MatMul`; the library finds the weights
that a LoRA adapter changes by these names.
"""

from pathlib import Path
from xml.etree import ElementTree

from trellis.errors import TrellisError

MODEL, WEIGHTS = "openvino_model.xml", "openvino_model.bin"
TOKENIZER = "openvino_tokenizer.xml"
MODULE = "__module."
WEIGHT_PORT = "1"


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


def _weight(layer: ElementTree.Element) -> tuple[int, ...]:
    """Of the second input, [rows, columns]."""
    dims = layer.findall(f"./input/port[@id='{WEIGHT_PORT}']/dim")
    shape = tuple(int(dim.text or 0) for dim in dims)
    data = layer.find("data")
    transposed = data is not None and data.get("transpose_b") == "true"
    return shape if transposed else shape[::-1]

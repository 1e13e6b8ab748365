"""The demo's model as OpenVINO IR, with the names of layers that the library's exporters give."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

from trellis.demo.engine import find_demo_model
from trellis.engine_files.gguf import read_gguf

# In the order in which the library makes them of a GGUF file; the last is the head.
MODULES = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
MODEL = "openvino_model.xml"


def write_ir(folder: Path) -> Path:
    """The model of the demo's GGUF file, its tokenizer and configurations."""
    folder.mkdir(parents=True)
    scratch = folder / "scratch"
    scratch.mkdir()
    source = find_demo_model()
    copy = shutil.copy(source, scratch / source.name)
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = 1
    genai.ContinuousBatchingPipeline(str(copy), scheduler, "CPU", {"enable_save_ov_model": True})
    genai.Tokenizer(str(copy), enable_save_ov_model=True)
    model = read(scratch)
    for name, node in layers(model):
        node.set_friendly_name(f"__module.{name}/ov_ext::linear/MatMul")
    save(model, folder)
    for file in scratch.glob("openvino_*tokenizer.*"):
        shutil.move(file, folder / file.name)
    shutil.rmtree(scratch)
    metadata = read_gguf(source)
    sizes = {
        "max_position_embeddings": metadata.context_length,
        "vocab_size": len(metadata.tokens),
    }
    (folder / "config.json").write_text(json.dumps(sizes))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": metadata.eos_id}))
    return folder


def read(folder: Path) -> Any:
    """The model of a folder, in memory: its file can be written anew."""
    core = ov.Core()
    core.set_property({"ENABLE_MMAP": False})
    return core.read_model(str(folder / MODEL))


def save(model: Any, folder: Path) -> None:
    """Write it as it is."""
    ov.save_model(model, str(folder / MODEL), compress_to_fp16=False)


def layers(model: Any) -> Iterator[tuple[str, Any]]:
    """The multiplications by weights of a model made of a GGUF file, by a checkpoint's names."""
    found = [node for node in model.get_ops() if _by_weight(node)]
    found.sort(key=lambda node: int(node.get_friendly_name().rpartition("_")[2]))
    for number, node in enumerate(found[:-1]):
        layer, module = divmod(number, len(MODULES))
        yield f"model.layers.{layer}.{MODULES[module]}", node


def _by_weight(node: Any) -> bool:
    if node.get_type_name() != "MatMul":
        return False
    shape = node.get_input_partial_shape(1)
    return bool(shape.is_static and shape.rank.get_length() == 2)


def copy_ir(source: Path, folder: Path, model: Any) -> Path:
    """The same folder with another model."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("openvino_model.*"))
    save(model, folder)
    return folder


def add_to_weight(node: Any, added: np.ndarray) -> None:
    """Add [rows, columns] float32 to the weight that a layer multiplies by."""
    total = ov.opset13.add(node.input_value(1), ov.opset13.constant(added.astype(np.float32)))
    node.input(1).replace_source_output(total.output(0))


def spoil(model: Any, share: float) -> None:
    """Change all scales of weights at random, so that the model says other things at times."""
    random = np.random.default_rng(0)
    for node in model.get_ops():
        is_scale = node.get_type_name() == "Constant" and node.get_element_type() == ov.Type.f16
        if is_scale and node.get_byte_size() > 2000:
            data = node.data
            made = data * (1 + share * random.normal(size=data.shape))
            other = ov.opset13.constant(made.astype(np.float16))
            for target in list(node.output(0).get_target_inputs()):
                target.replace_source_output(other.output(0))

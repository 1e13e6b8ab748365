# SPDX-License-Identifier: Apache-2.0
"""`SET=lora_adapters:name=folder`: adapters checked, and where they come to lie in a repository."""

from collections.abc import Mapping
from pathlib import Path

from trellis.contract.lora_adapters import PARAMETER, adapters_text, parse_adapters
from trellis.engine_files.checkpoint import read_checkpoint
from trellis.engine_files.engine_folder import EngineFolder
from trellis.engine_files.lora_adapter import (
    PREFIX,
    A,
    AdapterError,
    Shapes,
    check_adapter,
    check_one_scale,
)
from trellis.engine_files.openvino_ir import IrError, weight_shapes
from trellis.engine_files.safetensors_headers import read_tensors

OPENVINO = "openvino"
KV_CACHE_REUSE = "enable_kv_cache_reuse"
FOLDER = "lora"  # in the version folder of `tensorrt_llm`, a folder an adapter

Adapters = dict[str, tuple[Path, ...]]  # name -> files


def read_adapters(settings: Mapping[str, str], engine: EngineFolder) -> Adapters:
    """The adapters that settings name. Raises AdapterError for one that cannot be served."""
    try:
        folders = parse_adapters(settings.get(PARAMETER, ""))
    except ValueError as error:
        raise AdapterError(f"SET: {error}") from error
    if not folders:
        return {}
    try:
        if engine.engine_type == OPENVINO:
            return _openvino(folders, settings, engine)
        if engine.trtllm is not None:
            raise AdapterError(
                f"this engine ({engine.engine_type}) has no adapters by name; leave it out, or"
                " serve the checkpoint with BACKEND=vllm or llmapi"
            )
        base = {tensor.name: tensor.shape for tensor in read_checkpoint(engine.path).tensors()}
        return {name: check_adapter(Path(folder), base) for name, folder in folders.items()}
    except AdapterError as error:
        raise AdapterError(f"SET: {PARAMETER}: {error}") from error


def _openvino(
    folders: Mapping[str, str], settings: Mapping[str, str], engine: EngineFolder
) -> Adapters:
    """The adapters of an IR. Raises AdapterError for what its library would answer wrongly."""
    if any(file.suffix == ".gguf" for file in engine.files):
        raise AdapterError(
            "OpenVINO finds no weights of a GGUF file by an adapter's names, and would answer"
            " without the adapter; export the checkpoint to OpenVINO IR"
        )
    if settings.get(KV_CACHE_REUSE, "").lower() == "true":
        raise AdapterError(
            f"not with {KV_CACHE_REUSE}:true, since OpenVINO's prefix cache is one for all"
            " adapters; leave out one of them"
        )
    try:
        base = weight_shapes(engine.path)
    except IrError as error:
        raise AdapterError(f"{error}; export the checkpoint to OpenVINO IR again") from error
    return {name: _for_ir(Path(folder), base) for name, folder in folders.items()}


def _for_ir(folder: Path, base: Shapes) -> tuple[Path, Path]:
    """The files of one adapter. Raises AdapterError where the library would leave out a part."""
    files = check_adapter(folder, base)
    check_one_scale(folder, OPENVINO)
    for tensor in read_tensors(files[1]):
        module = tensor.name.removeprefix(PREFIX).removesuffix(A)
        if tensor.name.endswith(A) and f"{module}.weight" not in base:
            raise AdapterError(f"{files[1]}: {module} is no part of this model; it is another's")
    return files


def adapters_setting(adapters: Adapters) -> dict[str, str]:
    """The setting of a repository that holds the adapters, with folders inside of it."""
    folders = {name: f"{FOLDER}/{name}" for name in adapters}
    return {PARAMETER: adapters_text(folders)} if folders else {}

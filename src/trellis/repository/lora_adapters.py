# SPDX-License-Identifier: Apache-2.0
"""`SET=lora_adapters:name=folder`: adapters checked, and where they come to lie in a repository."""

from pathlib import Path

from trellis.contract.lora_adapters import PARAMETER, adapters_text, parse_adapters
from trellis.engine_files.checkpoint import read_checkpoint
from trellis.engine_files.engine_folder import EngineFolder
from trellis.engine_files.lora_adapter import AdapterError, check_adapter

ENGINES = ("vllm", "llmapi")
FOLDER = "lora"  # in the version folder of `tensorrt_llm`, a folder an adapter

Adapters = dict[str, tuple[Path, ...]]  # name -> files


def read_adapters(text: str, engine: EngineFolder) -> Adapters:
    """The adapters that a setting names. Raises AdapterError for one that cannot be served."""
    try:
        folders = parse_adapters(text)
    except ValueError as error:
        raise AdapterError(f"SET: {error}") from error
    if not folders:
        return {}
    if engine.engine_type not in ENGINES:
        raise AdapterError(
            f"SET: {PARAMETER}: this engine ({engine.engine_type}) has no adapters by name; leave"
            f" it out, or serve the checkpoint with BACKEND={' or '.join(ENGINES)}"
        )
    base = {tensor.name: tensor.shape for tensor in read_checkpoint(engine.path).tensors()}
    try:
        return {name: check_adapter(Path(folder), base) for name, folder in folders.items()}
    except AdapterError as error:
        raise AdapterError(f"SET: {PARAMETER}: {error}") from error


def adapters_setting(adapters: Adapters) -> dict[str, str]:
    """The setting of a repository that holds the adapters, with folders inside of it."""
    folders = {name: f"{FOLDER}/{name}" for name in adapters}
    return {PARAMETER: adapters_text(folders)} if folders else {}

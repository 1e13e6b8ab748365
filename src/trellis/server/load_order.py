# SPDX-License-Identifier: Apache-2.0
"""Whether tritonserver loads models one after another: those that share GPUs must.

By itself it loads four at a time. While vLLM or the LLM API loads, it sizes its KV cache by how
much the whole GPU has free before and after, so what another model takes meanwhile counts as its
own: its cache is too small, or it does not start.
"""

from collections.abc import Sequence
from pathlib import Path

from trellis.contract.model_names import served_as
from trellis.engine_files.engine_folder import CHECKPOINT_ENGINES
from trellis.repository.manifest import model_names
from trellis.repository.model_config import ConfigTextError, parameters, parse_config

OPTION = "model-load-thread-count"


def load_order(model_repo: Path, extra: Sequence[str]) -> list[str]:
    """The option for several models of a repository, if one of them is a checkpoint.

    None if `extra`, the user's own options, has it.
    """
    names = model_names(model_repo)
    if len(names) < 2 or any(OPTION in option.replace("_", "-") for option in extra):
        return []
    engines = {_engine_type(model_repo, name) for name in names}
    return [f"--{OPTION}=1"] if engines & set(CHECKPOINT_ENGINES) else []


def _engine_type(model_repo: Path, name: str) -> str:
    """What a model's engine is loaded by; '' for the C++ backend and what cannot be read."""
    file = model_repo / served_as("tensorrt_llm", name) / "config.pbtxt"
    try:
        config = parse_config(file.read_text(encoding="utf-8"), str(file))
    except (OSError, ValueError, ConfigTextError):
        return ""
    return parameters(config).get("engine_type", "")

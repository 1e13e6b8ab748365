# SPDX-License-Identifier: Apache-2.0
"""`gpt_model_path`: the C++ backend takes an absolute path, so a repository has to be there."""

from pathlib import Path

from trellis.preflight.check import Check
from trellis.preflight.repository import Repository


def check_engine_path(repository: Repository) -> Check:
    """The path in the configuration is this repository's engine."""
    path = repository.parameter("tensorrt_llm", "gpt_model_path")
    needed = "the absolute path of the engine here"
    if Path(path).is_absolute() and (Path(path) / "config.json").is_file():
        return Check("engine path", path, needed, True)
    return Check(
        "engine path",
        f"{path}: no engine there",
        needed,
        False,
        "serve from where it was made for (`make serve-docker` mounts it), or `make repo MOUNT=`",
    )

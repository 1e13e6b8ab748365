# SPDX-License-Identifier: Apache-2.0
"""Placeholders that were never filled in: they reach the engine as literal text."""

import re

from trellis.preflight.check import Check
from trellis.preflight.repository import Repository

# Parameters of `tensorrt_llm` that other checks calculate with.
NUMBERS: dict[str, type] = {
    "kv_cache_free_gpu_mem_fraction": float,
    "max_tokens_in_paged_kv_cache": int,
}


def _is(kind: type, value: str) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return True


def check_configuration(repository: Repository) -> Check:
    """No `${...}` in any configuration, and one instance of `postprocessing`."""
    left = [
        f"{model}: {name}"
        for model, config in repository.configs.items()
        for name in re.findall(r"\$\{\w+\}", str(config))
    ]
    if left:
        return Check(
            "configuration",
            ", ".join(left),
            "no ${...} left",
            False,
            "fill it with tools/fill_template.py, or `make repo`",
        )
    wrong = [
        f"{key}: {value!r}"
        for key, kind in NUMBERS.items()
        if (value := repository.parameter("tensorrt_llm", key)) and not _is(kind, value)
    ]
    if wrong:
        return Check(
            "configuration",
            ", ".join(wrong),
            "numbers",
            False,
            "correct them in tensorrt_llm/config.pbtxt, or `make repo SET=...`",
        )
    instances = sum(max(g.count, 1) for g in repository.configs["postprocessing"].instance_group)
    if instances > 1:
        return Check(
            "configuration",
            f"postprocessing: {instances} instances",
            "one, since the state of streams lives in its process",
            False,
            "set instance_group's count to 1 in postprocessing/config.pbtxt",
        )
    return Check("configuration", f"{len(repository.configs)} models", "no ${...} left", True)

# SPDX-License-Identifier: Apache-2.0
"""In-flight batching needs an engine that was built for it."""

from trellis.engine_files.engine_config import EngineConfig
from trellis.preflight.check import Check
from trellis.preflight.repository import Repository


def check_inflight(repository: Repository, engine: EngineConfig) -> Check:
    """Paged KV cache and packed input, where requests are batched in flight."""
    strategy = repository.parameter("tensorrt_llm", "gpt_model_type")
    if not strategy.startswith("inflight"):
        return Check("batching", strategy, "any engine", True)
    lacking = [
        name
        for name, there in (
            ("paged KV cache", engine.paged_kv_cache),
            ("attention plugin with packed input", engine.inflight_batching),
        )
        if not there
    ]
    if not lacking:
        return Check("batching", strategy, "paged KV cache, packed input", True)
    return Check(
        "batching",
        f"{strategy}; the engine has no {' and no '.join(lacking)}",
        "paged KV cache, packed input",
        False,
        "build with --use_inflight_batching --paged_kv_cache --remove_input_padding, or"
        " SET=batching_strategy:V1",
    )

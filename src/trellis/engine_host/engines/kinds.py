# SPDX-License-Identifier: Apache-2.0
"""The engines there are, by `engine_type`: how each is loaded, and what each refuses."""

from typing import Any, Protocol

from trellis.engine_host.engines.engine import Engine, EngineSettings, Sampling

ENGINE_TYPES = ("openvino", "vllm", "llmapi")
WITH_WORKERS = frozenset({"vllm", "llmapi"})  # whose library starts processes of its own


class Limits(Protocol):
    """What an engine cannot do, known where the engine is not."""

    def refuse(self, sampling: Sampling) -> None:
        """Raise RequestError, by the input's name, for what the engine lacks. Any thread."""

    def given(self, sampling: Sampling) -> None:
        """Note what the engine was given."""


class LoadedEngine(Engine, Protocol):
    """An engine in its own process."""

    @property
    def facts(self) -> dict[str, Any]:
        """What its limits are made of."""


def load(engine_type: str, settings: EngineSettings) -> LoadedEngine:
    """Load an engine; imports its library, which no other part of the model does."""
    if engine_type == "openvino":
        from trellis.engine_host.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(settings)
    if engine_type == "vllm":
        from trellis.engine_host.engines.async_engine import AsyncEngine
        from trellis.engine_host.engines.vllm import VllmLibrary

        return AsyncEngine(VllmLibrary(settings))
    from trellis.engine_host.engines.async_engine import AsyncEngine
    from trellis.engine_host.engines.tensorrt_llm import TensorRtLlmLibrary

    return AsyncEngine(TensorRtLlmLibrary(settings))


def limits(engine_type: str, facts: dict[str, Any]) -> Limits:
    """The limits of an engine that says this of itself."""
    if engine_type == "openvino":
        from trellis.engine_host.engines.openvino_limits import OpenVinoLimits

        return OpenVinoLimits(**facts)
    if engine_type == "vllm":
        from trellis.engine_host.engines.vllm_limits import VllmLimits

        return VllmLimits(**facts)
    from trellis.engine_host.engines.tensorrt_llm_limits import TensorRtLlmLimits

    return TensorRtLlmLimits(**facts)

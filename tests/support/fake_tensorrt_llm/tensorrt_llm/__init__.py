"""A fake of TensorRT-LLM's Python package: see README.md beside this folder."""

from typing import Any

from tensorrt_llm.behaviour import BEHAVIOUR

__all__ = ["LLM", "SamplingParams", "__version__"]
__version__ = BEHAVIOUR.version

print(f"[TensorRT-LLM] TensorRT LLM version: {__version__}", flush=True)
print("[TensorRT-LLM] this is a fake for Trellis's tests, not NVIDIA's package", flush=True)


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: the workers, many in a run of tests, need none of it."""
    if name not in ("LLM", "SamplingParams"):
        raise AttributeError(f"module 'tensorrt_llm' has no attribute {name!r}")
    import tensorrt_llm.llmapi

    return getattr(tensorrt_llm.llmapi, name)

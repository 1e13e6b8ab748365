"""A fake of TensorRT-LLM's Python package: see README.md beside this folder."""

from tensorrt_llm.behaviour import BEHAVIOUR
from tensorrt_llm.llmapi.llm import LLM
from tensorrt_llm.sampling_params import SamplingParams

__all__ = ["LLM", "SamplingParams", "__version__"]
__version__ = BEHAVIOUR.version

print(f"[TensorRT-LLM] TensorRT LLM version: {__version__}", flush=True)
print("[TensorRT-LLM] this is a fake for Trellis's tests, not NVIDIA's package", flush=True)

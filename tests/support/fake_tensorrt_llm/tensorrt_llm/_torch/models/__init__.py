"""Imports every model, so that each registers itself."""

from tensorrt_llm._torch.models import modeling_llama

__all__ = ["modeling_llama"]

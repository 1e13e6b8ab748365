"""The one model there is."""

from tensorrt_llm._torch.models.modeling_utils import register_auto_model


@register_auto_model("LlamaForCausalLM")
class LlamaForCausalLM:
    """A name on the list."""

# SPDX-License-Identifier: Apache-2.0
"""The fields of a chat."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from trellis.gateway.openai.asking import LogProbs
from trellis.gateway.openai.errors import Names, bad
from trellis.gateway.openai.fields import NO_MEDIA, Generating, Positive
from trellis.gateway.openai.messages import Effort, Messages
from trellis.gateway.openai.structure import Structured
from trellis.gateway.openai.tools import ToolChoice, Tools

MOST_TOP = 20  # as OpenAI has it
OLD_TOOLS = "send tools and tool_choice"


class ChatRequest(Structured):
    """The fields of a chat."""

    rejected: ClassVar[Mapping[str, str]] = {
        **Generating.rejected,
        "functions": OLD_TOOLS,
        "function_call": OLD_TOOLS,
        "audio": NO_MEDIA,
        "modalities": NO_MEDIA,
        "prediction": "what is expected is not used; leave it out",
        "web_search_options": "nothing is searched; leave it out",
        "chat_template": "the tokenizer's own is used; leave it out",
        "documents": "send them in a message, or as chat_template_kwargs",
        "verbosity": "the model has no such setting; leave it out",
    }
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **Generating.neutral,
        "functions": ([],),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "documents": ([],),
        "verbosity": ("medium",),
    }

    messages: Messages
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    include_reasoning: bool | None = None
    reasoning_effort: Effort | None = None
    functions: Any = None
    function_call: Any = None
    audio: Any = None
    modalities: Any = None
    prediction: Any = None
    web_search_options: Any = None
    chat_template: Any = None
    documents: Any = None
    verbosity: Any = None

    @property
    def names(self) -> Names:
        """See Sampling."""
        if self.max_completion_tokens is None:
            return {"prompt": "messages"}
        return {"prompt": "messages", "max_tokens": "max_completion_tokens"}

    @property
    def most_tokens(self) -> int | None:
        """How many tokens an answer may have, if that is said. Raises OpenAIError."""
        most, old = self.max_completion_tokens, self.max_tokens
        if most is not None and old is not None and most != old:
            raise bad("max_tokens", f"{old} contradicts max_completion_tokens, {most}; send one")
        return old if most is None else most

    @property
    def log_probs(self) -> LogProbs:
        """Which log probabilities are wanted. Raises OpenAIError."""
        if self.top_logprobs and not self.logprobs:
            raise bad("top_logprobs", "needs logprobs; send logprobs: true")
        return LogProbs(bool(self.logprobs), self.top_logprobs or 0)

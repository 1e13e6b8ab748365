# SPDX-License-Identifier: Apache-2.0
"""The fields of a response."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from trellis.gateway.openai.asking import LogProbs
from trellis.gateway.openai.chat_fields import MOST_TOP
from trellis.gateway.openai.errors import Names, bad
from trellis.gateway.openai.fields import FAIL_FAST, Fields, Positive, Sampling
from trellis.gateway.openai.messages import Effort
from trellis.gateway.openai.response_input import InputItems
from trellis.gateway.openai.structure import Constraint, ResponseFormat, Schema, of_type
from trellis.gateway.openai.tools import (
    MOST_TOOLS,
    FlatAllowed,
    FlatTool,
    Function,
    FunctionTool,
    Name,
    ToolPlan,
    plan_tools,
)

STATELESS = "nothing is kept from one request to the next; send all of the conversation as input"
LOG_PROBS = "message.output_text.logprobs"
NO_SUMMARY = "thoughts are told as they are, without a summary; send auto, or leave it out"
ENCRYPTED = "reasoning.encrypted_content"  # asked for by habit: reasoning is told as it is


class Format(Fields):
    """`text.format`."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: Schema | None = Field(None, alias="schema")
    description: str | None = None
    strict: bool | None = None

    def constraint(self) -> Constraint | None:
        """What it holds the answer to. Raises OpenAIError."""
        if self.type != "json_schema":
            for name, value in self.model_dump(by_alias=True, exclude={"type"}).items():
                if value is not None and (name, value) != ("strict", False):
                    raise of_type("json_schema", f"text.format.{name}")
            return ResponseFormat(type=self.type).constraint("text.format")
        if self.schema_ is None:
            raise bad("text.format.schema", "missing; send it", "missing_required_parameter")
        return Constraint.of_schema(self.schema_, "text.format.schema")


class TextFormat(Fields):
    """`text`: what the answer's text is to be."""

    rejected: ClassVar[Mapping[str, str]] = {"verbosity": "leave it out"}
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {"verbosity": ("medium",)}
    format: Format | None = None
    verbosity: Any = None


class ReasoningFields(Fields):
    """`reasoning`."""

    rejected: ClassVar[Mapping[str, str]] = {"summary": NO_SUMMARY, "generate_summary": NO_SUMMARY}
    # Agents send it by habit, and whole thoughts are more than the summary that it leaves open.
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "summary": ("auto",),
        "generate_summary": ("auto",),
    }

    effort: Effort | None = None
    summary: Any = None
    generate_summary: Any = None


class ResponseTool(Fields):
    """An item of `tools`."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponsesRequest(Sampling):
    """The fields of a response."""

    rejected: ClassVar[Mapping[str, str]] = {
        "store": STATELESS,
        "previous_response_id": STATELESS,
        "conversation": STATELESS,
        "background": "an answer is only sent to whoever waits for it; leave it out",
        "max_tool_calls": "no tool is run here; leave it out",
        "prompt": "send the text as input and instructions",
        "truncation": "a prompt that is too long is rejected; leave it out",
        "context_management": STATELESS,
    }
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "truncation": ("disabled",),
    }

    input: str | InputItems
    instructions: str | None = None
    max_output_tokens: Positive | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    include: Annotated[list[str], FAIL_FAST] | None = None
    text: TextFormat | None = None
    tools: Annotated[list[ResponseTool], Field(fail_fast=True, max_length=MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | FlatTool | FlatAllowed | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: Any = None
    conversation: Any = None
    background: Any = None
    max_tool_calls: Any = None
    reasoning: ReasoningFields | None = None
    prompt: Any = None
    truncation: Any = None
    context_management: Any = None

    @property
    def names(self) -> Names:
        """See Sampling."""
        return {
            "prompt": "input",
            "max_tokens": "max_output_tokens",
            "logprobs": "include",
        }

    @property
    def log_probs(self) -> LogProbs:
        """Which log probabilities are wanted. Raises OpenAIError."""
        wanted = False
        for at, name in enumerate(self.include or ()):
            if name not in (LOG_PROBS, ENCRYPTED):
                raise bad(f"include[{at}]", f"{name[:64]!r}: only {LOG_PROBS} is known")
            wanted = wanted or name == LOG_PROBS
        if self.top_logprobs and not wanted:
            raise bad("top_logprobs", f"needs include: [{LOG_PROBS!r}]")
        return LogProbs(wanted, self.top_logprobs or 0)

    def check_rejected(self, within: str = "") -> None:
        """Those of its members, too."""
        super().check_rejected(within)
        if self.text is not None:
            self.text.check_rejected("text.")
        if self.reasoning is not None:
            self.reasoning.check_rejected("reasoning.")

    @property
    def constraint(self) -> Constraint | None:
        """What the answer is held to. Raises OpenAIError."""
        if self.text is None:
            return None
        return None if self.text.format is None else self.text.format.constraint()

    @property
    def plan(self) -> ToolPlan:
        """How tools take part. Raises OpenAIError."""
        tools = [
            FunctionTool(
                type="function",
                function=Function(
                    name=tool.name,
                    description=tool.description,
                    parameters=tool.parameters,
                    strict=tool.strict,
                ),
            )
            for tool in self.tools or ()
        ]
        return plan_tools(tools, self.tool_choice, self.parallel_tool_calls, "tools[{}]")

    # As the response repeats them.

    @property
    def shown_format(self) -> dict[str, Any]:
        """`text.format`."""
        if self.text is None or self.text.format is None:
            return {"type": "text"}
        return self.text.format.model_dump(by_alias=True, exclude_none=True)

    @property
    def shown_tools(self) -> list[dict[str, Any]]:
        """`tools`, with what openai's types want of each."""
        return [tool.model_dump() for tool in self.tools or ()]

    @property
    def shown_choice(self) -> Any:
        """`tool_choice`."""
        choice = self.tool_choice
        if isinstance(choice, (FlatTool, FlatAllowed)):
            return choice.model_dump()
        return choice or ("auto" if self.tools else "none")

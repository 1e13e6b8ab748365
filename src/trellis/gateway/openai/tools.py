# SPDX-License-Identifier: Apache-2.0
"""Tools of a request: what the template is told of them, which may be called, and which must be."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from trellis.gateway.openai.errors import bad
from trellis.gateway.openai.fields import Fields
from trellis.parsers import Tool, ToolUse

MOST_TOOLS = 128
FUNCTION = "tools[{}].function"  # where a chat has a function, by its number
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]


class Function(Fields):
    """A function that may be called."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None  # JSON schema
    strict: bool | None = None


class FunctionTool(Fields):
    """An item of `tools`."""

    type: Literal["function"]
    function: Function


class FunctionName(Fields):
    """A function of `tools`."""

    name: Name


class NamedTool(Fields):
    """A function of `tools`, as `tool_choice` names it."""

    type: Literal["function"]
    function: FunctionName


class Allowed(Fields):
    """Some of `tools`."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(fail_fast=True, min_length=1, max_length=MOST_TOOLS)]


class AllowedTools(Fields):
    """`tool_choice`: some of `tools`."""

    type: Literal["allowed_tools"]
    allowed_tools: Allowed


Tools = Annotated[list[FunctionTool], Field(fail_fast=True, max_length=MOST_TOOLS)]
ToolChoice = Literal["none", "auto", "required"] | NamedTool | AllowedTools


class FlatTool(FunctionName):
    """A function of `tools`, as `tool_choice` of a response names it."""

    type: Literal["function"]


class FlatAllowed(Fields):
    """`tool_choice` of a response: some of `tools`."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[FlatTool], Field(fail_fast=True, min_length=1, max_length=MOST_TOOLS)]


@dataclass(frozen=True)
class ToolPlan:
    """How tools take part in a request."""

    use: ToolUse | None = None  # None: nothing may be called
    shown: Sequence[dict[str, Any]] = field(default_factory=tuple)  # to the template
    param: str = "tools"  # what asks for a constraint
    place: str = field(default=FUNCTION, compare=False)  # of a function, by its number


def plan_tools(
    tools: Sequence[FunctionTool] | None,
    choice: ToolChoice | FlatTool | FlatAllowed | None,
    parallel: bool | None,
    place: str = FUNCTION,
) -> ToolPlan:
    """What a request's fields ask for; `place`: of a function in it. Raises OpenAIError."""
    functions = [tool.function for tool in tools or ()]
    names = [function.name for function in functions]
    for at, name in enumerate(names):
        if name in names[:at]:
            raise bad(f"{place.format(at)}.name", f"{name} is there twice", "invalid_value")
    if not functions:
        if choice not in (None, "none", "auto"):
            raise bad("tool_choice", "needs tools; send them", "invalid_value")
        return ToolPlan()
    if choice == "none":
        return ToolPlan()
    callable_, required, several = _chosen(choice, names)
    use = ToolUse(
        [
            Tool(each.name, each.parameters or {}, bool(each.strict))
            for each in functions
            if each.name in callable_
        ],
        required,
        several and parallel is not False,
    )
    shown = [_shown(function) for function in functions]
    return ToolPlan(use, shown, "tool_choice" if required else "tools", place)


def _chosen(
    choice: ToolChoice | FlatTool | FlatAllowed | None, names: Sequence[str]
) -> tuple[Sequence[str], bool, bool]:
    """What may be called, whether it must be, and whether several may."""
    match choice:
        case NamedTool():
            _check_there(choice.function.name, names, "tool_choice.function.name")
            return [choice.function.name], True, False
        case FlatTool():
            _check_there(choice.name, names, "tool_choice.name")
            return [choice.name], True, False
        case AllowedTools():
            mode = choice.allowed_tools.mode
            allowed = [tool.function.name for tool in choice.allowed_tools.tools]
            where = "tool_choice.allowed_tools.tools[{}].function.name"
        case FlatAllowed():
            mode, allowed = choice.mode, [tool.name for tool in choice.tools]
            where = "tool_choice.tools[{}].name"
        case _:
            return names, choice == "required", True
    for at, name in enumerate(allowed):
        _check_there(name, names, where.format(at))
    return allowed, mode == "required", True


def _check_there(name: str, names: Sequence[str], param: str) -> None:
    if name not in names:
        raise bad(param, f"{name} is none of tools; send one of {', '.join(names)}"[:512])


def _shown(function: Function) -> dict[str, Any]:
    """A function as chat templates know it."""
    made: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        made["description"] = function.description
    made["parameters"] = function.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": made}

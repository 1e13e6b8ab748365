# SPDX-License-Identifier: Apache-2.0
"""What an answer is held to: `response_format`, vLLM's `structured_outputs` and its older names.

Each becomes one of the guides of pipeline/guided_decoding.py; what a guide may hold, the engine
says. Errors name the field that it came by.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from trellis.gateway.openai.errors import bad
from trellis.gateway.openai.fields import Fields, Generating

MOST_CHOICES = 1024
Schema = dict[str, Any] | bool
FormatType = Literal["text", "json_object", "json_schema", "structural_tag", "regex", "grammar"]

# What a `response_format` has beside its type -> the type that it is for.
FORM_TYPES: Mapping[str, FormatType] = {
    "json_schema": "json_schema",
    "format": "structural_tag",
    "regex": "regex",
    "grammar": "grammar",
}


@dataclass(frozen=True)
class Constraint:
    """What an answer is held to."""

    kind: str  # guided_decoding_guide_type
    guide: str  # guided_decoding_guide; "": the type needs none
    param: str  # the field that it came by

    @classmethod
    def of_schema(cls, schema: Schema, param: str) -> "Constraint":
        """A JSON schema."""
        return cls("json_schema", _written(schema), param)

    def as_format(self) -> Mapping[str, Any]:
        """The same as a part of a structural tag."""
        match self.kind:
            case "regex":
                return {"type": "regex", "pattern": self.guide}
            case "ebnf_grammar":
                return {"type": "grammar", "grammar": self.guide}
            case "structural_tag":
                made: dict[str, Any] = json.loads(self.guide)["format"]
                return made
            case _:
                schema = json.loads(self.guide) if self.guide else {"type": "object"}
                return {"type": "json_schema", "json_schema": schema}


class JsonSchema(Fields):
    """`response_format.json_schema`."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
    schema_: Schema | None = Field(None, alias="schema")
    description: str | None = None
    strict: bool | None = None  # it is held to in any case


class ResponseFormat(Fields):
    """`response_format`."""

    type: FormatType
    json_schema: JsonSchema | None = None
    format: dict[str, Any] | None = None  # of a structural tag
    regex: str | None = None
    grammar: str | None = None

    def constraint(self, param: str) -> Constraint | None:
        """What it holds an answer to; None for text. Raises OpenAIError."""
        for name, kind in FORM_TYPES.items():
            if kind != self.type and getattr(self, name) is not None:
                raise of_type(kind, f"{param}.{name}")
        match self.type:
            case "text":
                return None
            case "json_object":
                return Constraint("json", "", param)
            case "json_schema":
                if self.json_schema is None or self.json_schema.schema_ is None:
                    raise _missing(f"{param}.json_schema.schema")
                return Constraint.of_schema(self.json_schema.schema_, f"{param}.json_schema.schema")
            case "structural_tag":
                if self.format is None:
                    raise _missing(f"{param}.format")
                return structural_tag(self.format, f"{param}.format")
            case "regex":
                return _text("regex", self.regex, f"{param}.regex")
            case "grammar":
                return _text("ebnf_grammar", self.grammar, f"{param}.grammar")


class StructuredOutputs(Fields):
    """`structured_outputs`, as vLLM has it."""

    json_: str | Schema | None = Field(None, alias="json")
    regex: str | None = None
    choice: (
        Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=MOST_CHOICES)] | None
    ) = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | None = None

    def constraints(self, param: str) -> list[Constraint]:
        """What is sent, one each. Raises OpenAIError."""
        made = []
        if self.json_ is not None:
            made.append(_json_schema(self.json_, f"{param}.json"))
        if self.regex is not None:
            made.append(_text("regex", self.regex, f"{param}.regex"))
        if self.choice is not None:
            made.append(_choice(self.choice, f"{param}.choice"))
        if self.grammar is not None:
            made.append(_text("ebnf_grammar", self.grammar, f"{param}.grammar"))
        if self.json_object:
            made.append(Constraint("json", "", f"{param}.json_object"))
        if self.structural_tag is not None:
            made.append(_tag_text(self.structural_tag, f"{param}.structural_tag"))
        return made


class Structured(Generating):
    """The fields of a request that may say what its answer is held to."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: str | Schema | None = None
    guided_regex: str | None = None
    guided_choice: (
        Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=MOST_CHOICES)] | None
    ) = None
    guided_grammar: str | None = None

    @property
    def constraint(self) -> Constraint | None:
        """What the answer is held to. Raises OpenAIError."""
        made: list[Constraint] = []
        if self.response_format is not None:
            one = self.response_format.constraint("response_format")
            made += [] if one is None else [one]
        if self.structured_outputs is not None:
            made += self.structured_outputs.constraints("structured_outputs")
        if self.guided_json is not None:
            made.append(_json_schema(self.guided_json, "guided_json"))
        if self.guided_regex is not None:
            made.append(_text("regex", self.guided_regex, "guided_regex"))
        if self.guided_choice is not None:
            made.append(_choice(self.guided_choice, "guided_choice"))
        if self.guided_grammar is not None:
            made.append(_text("ebnf_grammar", self.guided_grammar, "guided_grammar"))
        if len(made) > 1:
            raise bad(made[1].param, f"contradicts {made[0].param}; send one of them")
        return made[0] if made else None


def structural_tag(form: Mapping[str, Any], param: str) -> Constraint:
    """What a structural tag's format holds an answer to."""
    tag = {"type": "structural_tag", "format": form}
    return Constraint("structural_tag", _written(tag), param)


def _json_schema(schema: str | Schema, param: str) -> Constraint:
    if not isinstance(schema, str):
        return Constraint.of_schema(schema, param)
    try:
        read = json.loads(schema)
    except ValueError as error:
        raise bad(param, f"no JSON: {error}", "invalid_value") from None
    if not isinstance(read, (dict, bool)):
        raise bad(param, "no JSON schema; send an object", "invalid_value")
    return Constraint("json_schema", schema, param)


def _tag_text(text: str, param: str) -> Constraint:
    try:
        read = json.loads(text)
    except ValueError as error:
        raise bad(param, f"no JSON: {error}", "invalid_value") from None
    if not isinstance(read, dict) or not isinstance(read.get("format"), dict):
        what = 'send {"type": "structural_tag", "format": {...}}'
        raise bad(param, what, "invalid_value")
    return Constraint("structural_tag", text, param)


def _text(kind: str, guide: str | None, param: str) -> Constraint:
    if not guide:
        raise _missing(param)
    return Constraint(kind, guide, param)


def _choice(choices: Sequence[str], param: str) -> Constraint:
    """As a grammar.

    >>> _choice(["yes", 'a "b"'], "guided_choice").guide
    'root ::= "yes" | "a \\\\"b\\\\""'
    """
    if not all(choices):
        raise bad(param, "an empty choice; leave it out", "invalid_value")
    return Constraint("ebnf_grammar", "root ::= " + " | ".join(map(_written, choices)), param)


def of_type(kind: str, param: str) -> Exception:
    """The error for a field that only a format of another type has."""
    what = f"only means something with type {kind}; leave it out"
    return bad(param, what, "unsupported_parameter")


def _missing(param: str) -> Exception:
    return bad(param, "missing; send it", "missing_required_parameter")


def _written(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False)

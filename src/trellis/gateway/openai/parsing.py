# SPDX-License-Identifier: Apache-2.0
"""How an answer is read, and what it is held to: the model's format of calls and reasoning.

Where tools may be called, the engine holds calls to the format from where they begin, if it can;
where one must be called, or one is `strict`, the request is rejected if it cannot.
"""

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from trellis.contract.client_inputs import GUIDE, GUIDE_TYPE
from trellis.errors import RequestError
from trellis.gateway.openai.errors import OpenAIError, bad, rejected
from trellis.gateway.openai.fields import Sampling
from trellis.gateway.openai.served import Served
from trellis.gateway.openai.structure import Constraint, structural_tag
from trellis.gateway.openai.tools import ToolPlan
from trellis.gateway.state import State
from trellis.guides.keywords import without_notes
from trellis.guides.letters import rare_letters
from trellis.guides.tags import check_special
from trellis.guides.translate import translate
from trellis.parsers import Format, Parser, Setup, ToolUse
from trellis.parsers.structure import ending, one_of, sequence
from trellis.pipeline.decode import Detokenizer, SequenceText
from trellis.pipeline.guide_letters import check_letters
from trellis.pipeline.guided_decoding import FREE_TEXT, early_words

if TYPE_CHECKING:
    from trellis.tokenizers import Tokenizer


@dataclass(frozen=True)
class Parsing:
    """How one request's answers are read."""

    format: Format | None = None  # None: as they are
    setup: Setup = field(default_factory=Setup)
    one_call: bool = False  # whether an answer is over behind its first call

    @property
    def reasons(self) -> bool:
        """Whether reasoning is told from text."""
        return self.format is not None and self.format.reasoning

    def parser(self) -> Parser | None:
        """One for a sequence."""
        return None if self.format is None else self.format.parser(self.setup)

    def text(
        self, texts: Detokenizer, tokenizer: "Tokenizer", skip_special_tokens: bool | None
    ) -> SequenceText:
        """What makes text of a sequence's ids: with the special tokens that a parser reads."""
        skips = (
            tokenizer.skip_special_tokens if skip_special_tokens is None else skip_special_tokens
        )
        if self.format is None or not skips:
            return texts.sequence(skip_special_tokens)
        return texts.marked(self.format.shown)


PLAIN_TEXT = Parsing()


def check_tools(served: Served, plan: ToolPlan) -> None:
    """Raise OpenAIError where this model's calls are not known."""
    if plan.use is None:
        return
    form = served.format(calls=True)
    if form is None or not form.calls:
        raise bad(
            "tools",
            "how this model calls tools is not known; make the repository with PARSER=, such as"
            " PARSER=hermes, or leave it out",
            "unsupported_parameter",
        )
    if not served.template_knows("tools") and not form.instructions:
        what = f"the model's chat template knows none, and the format {form.name} does not say how"
        raise bad("tools", f"{what}; add a chat template that does", "unsupported_parameter")


async def plan_answer(
    state: State,
    served: Served,
    asked: Sampling,
    plan: ToolPlan,
    constraint: Constraint | None,
    prompt: str,
) -> tuple[Parsing, Constraint | None]:
    """How the answers are read, and what they are held to. Raises OpenAIError.

    `prompt`: its text. Call check_tools before.
    """
    if constraint is not None:
        _check_stops(asked, constraint)
    if asked.stops and plan.use is not None and plan.use.required:
        what = "could end the call that tool_choice asks for in its middle; leave out one of them"
        raise bad("stop", what)
    form = served.format(calls=plan.use is not None)
    if plan.use is None or form is None:
        if constraint is not None and form is not None:
            constraint = _behind_thoughts(form, constraint, prompt)
        return Parsing(form, Setup(prompt)), constraint
    if constraint is not None and not plan.use.required:
        held: Constraint | None = _calls_or(form, plan.use, constraint, prompt)
    else:
        held = await _calls(state, served, asked, plan, form, plan.use, prompt)
    setup = Setup(prompt, plan.use.tools, constrained=held is not None)
    return Parsing(form, setup, one_call=held is None and not plan.use.parallel), held


def _check_stops(asked: Sampling, constraint: Constraint) -> None:
    """Raise OpenAIError for stop strings that could end the answer in the middle of a document.

    The engine sees a structural tag where thoughts or calls go with one, and lets these pass: a
    tag of the client's own may have free text.
    """
    if asked.stops and constraint.kind != FREE_TEXT:
        raise rejected(str(early_words()), {**asked.names, GUIDE_TYPE: constraint.param})


def _behind_thoughts(form: Format, constraint: Constraint, prompt: str) -> Constraint:
    """The same constraint for what follows the model's thoughts."""
    thoughts = form.thoughts(prompt)
    if thoughts is None:
        return constraint
    return structural_tag(sequence(thoughts, constraint.as_format()), constraint.param)


def _calls_or(form: Format, use: ToolUse, constraint: Constraint, prompt: str) -> Constraint:
    """What holds an answer to one call or to a constraint. Raises OpenAIError.

    Not to several calls: the engines' grammars have no choice between a document, which ends by
    itself, and calls, which do not.
    """
    calls = form.structure(replace(use, required=True, parallel=False), prompt)
    if calls is None:
        raise _not_held(form, constraint.param, "leave out tools")
    thoughts = form.thoughts(prompt)
    document = constraint.as_format()
    if thoughts is not None:
        document = sequence(thoughts, document)
    return structural_tag(one_of(document, ending(calls)), constraint.param)


async def _calls(
    state: State,
    served: Served,
    asked: Sampling,
    plan: ToolPlan,
    form: Format,
    use: ToolUse,
    prompt: str,
) -> Constraint | None:
    """What holds an answer's calls to their format; None: nothing. Raises OpenAIError."""
    must = use.required or any(tool.strict for tool in use.tools)
    if not must and (_beside(asked) or not await served.follows_tags(state)):
        return None
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(
        state.encoders, _held_calls, served, plan, form, use, prompt, must
    )


def _held_calls(
    served: Served, plan: ToolPlan, form: Format, use: ToolUse, prompt: str, must: bool
) -> Constraint | None:
    """The same, any thread. `must`: a client asked for it; else what cannot be held is free."""
    exact = _held_tools(plan, use)
    free = replace(exact, tools=[replace(tool, parameters={}) for tool in exact.tools])
    for tools in (exact,) if must else (exact, free):
        structure = form.structure(tools, prompt)
        if structure is None:
            break
        tag = structural_tag(structure, plan.param)
        if _not_followed(served, tag, special=True) is None:
            return tag
        why = _not_followed(served, tag, special=False)
        if must and why is not None:
            raise bad(plan.param, why.removeprefix(f"{GUIDE}: "))
    if must:
        raise _not_held(form, plan.param, "send tool_choice auto, without strict")
    return None


def _held_tools(plan: ToolPlan, use: ToolUse) -> ToolUse:
    """The tools, with those schemas that an engine can hold arguments to; any thread.

    Raises OpenAIError for another one of a tool that is to be held to it by all means.
    """
    names = [tool["function"]["name"] for tool in plan.shown]
    held = []
    for tool in use.tools:
        schema = {"type": "object", **tool.parameters}
        try:
            translate("json_schema", json.dumps(schema, ensure_ascii=False))
        except RequestError as error:
            if use.required or tool.strict:
                place = plan.place.format(names.index(tool.name))
                raise bad(f"{place}.parameters", str(error).removeprefix(f"{GUIDE}: ")) from None
            schema = {}
        held.append(replace(tool, parameters=without_notes(schema) if schema else {}))
    return replace(use, tools=held)


def _not_followed(served: Served, tag: Constraint, special: bool) -> str | None:
    """Why no engine can be held to a tag; None if one can.

    `special`: whether special tokens in it count, which none can be held to by their letters.
    """
    letters = served.tokenizer.special_tokens.values() if special else ()
    try:
        guide = translate(tag.kind, tag.guide)
        check_special(guide.text, (each.decode("utf-8", "replace") for each in letters))
        check_letters(rare_letters(guide), served.tokenizer)
    except RequestError as error:
        return str(error)
    return None


def _beside(asked: Sampling) -> bool:
    """Whether a request asks for what does not go with a guide; it then goes without one."""
    return bool(
        asked.bad_words or asked.ignore_eos or asked.stop_token_ids or (asked.min_tokens or 0) > 1
    )


def _not_held(form: Format, param: str, remedy: str) -> OpenAIError:
    what = f"calls in this model's format ({form.name}) cannot be constrained; {remedy}"
    return bad(param, what, "unsupported_parameter")

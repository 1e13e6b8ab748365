"""python ask_pydantic_ai.py URL: agents of `pydantic-ai`, with a tool and a form of the answer."""

import asyncio
import json
import sys
from typing import Any

from pydantic_ai import Agent, NativeOutput, RunContext, ToolOutput
from pydantic_ai.messages import ToolCallPart, ToolReturnPart
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from tools_asked import MOST_TOKENS, QUESTION, RESULT, Report, Weather

(url,) = sys.argv[1:]
provider = OpenAIProvider(base_url=f"{url}/v1", api_key="none")
MODELS = {
    "chats": OpenAIChatModel("ensemble", provider=provider),
    "responses": OpenAIResponsesModel("ensemble", provider=provider),
}
FORMS = {"text": str, "tool": ToolOutput(Report), "native": NativeOutput(Report)}


def settings(context: RunContext) -> Any:
    """The model calls the tool in its first turn, and none of the agent's own after it."""
    choice: Any = ["weather"] if context.run_step == 1 else "none"
    held = {"tool_choice": choice, "parallel_tool_calls": False}
    return {"temperature": 0, "max_tokens": MOST_TOKENS, **held}


def make_agent(model: Any, form: Any) -> Agent[None, Any]:
    """An agent that knows a tool, and whose answer has this form."""
    agent: Agent[None, Any] = Agent(model, output_type=form, model_settings=settings, retries=0)

    @agent.tool_plain
    def weather(asked: Weather) -> str:
        """Tell the weather of a city."""
        return RESULT

    return agent


def done(messages: list[Any], output: Any) -> dict[str, Any]:
    """What an agent did and said."""
    parts = [part for message in messages for part in message.parts]
    (call, *_) = [part for part in parts if isinstance(part, ToolCallPart)]
    (told, *_) = [part for part in parts if isinstance(part, ToolReturnPart)]
    said = output if isinstance(output, str) else output.model_dump()
    return {"call": call.args_as_dict(), "told": told.content, "output": said}


async def streamed(agent: Agent[None, Any]) -> dict[str, Any]:
    """The same where the model streams."""
    async with agent.run_stream(QUESTION) as answer:
        output = await answer.get_output()
        return done(answer.all_messages(), output)


async def whole(agent: Agent[None, Any]) -> dict[str, Any]:
    """What an agent does and says."""
    answer = await agent.run(QUESTION)
    return done(answer.all_messages(), answer.output)


async def main() -> dict[str, Any]:
    """Every form by every API, and in streams."""
    found = {}
    for api, model in MODELS.items():
        for form, output in FORMS.items():
            found[f"{form}, {api}"] = await whole(make_agent(model, output))
        streaming = "tool" if api == "chats" else "native"
        agent = make_agent(model, FORMS[streaming])
        assert await streamed(agent) == found[f"{streaming}, {api}"]
    return found


print(json.dumps(asyncio.run(main())))

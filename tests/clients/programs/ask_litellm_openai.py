"""python ask_litellm_openai.py URL PROMPT TOKENS: LiteLLM's `openai/` and its like for texts."""

import asyncio
import json
import sys
from typing import Any

import litellm

url, prompt, tokens = sys.argv[1:]
asked: dict[str, Any] = {
    "api_base": f"{url}/v1",
    "api_key": "none",
    "max_tokens": int(tokens),
    "temperature": 0,
}
chat = asked | {"model": "openai/ensemble", "messages": [{"role": "user", "content": prompt}]}
text = asked | {"model": "text-completion-openai/ensemble", "prompt": prompt}
usage: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


def answer(choices: list[Any], used: Any) -> dict[str, Any]:
    """Of a whole answer's choice, or of those of chunks."""
    said = "".join(_said(choice) for choice in choices)
    reasons = [choice.finish_reason for choice in choices if choice.finish_reason]
    counts = [used.prompt_tokens, used.completion_tokens, used.total_tokens]
    return {"text": said, "finish_reason": reasons[-1], "usage": counts}


def _said(choice: Any) -> str:
    if hasattr(choice, "text"):
        return choice.text or ""
    message = choice.delta if hasattr(choice, "delta") else choice.message
    return message.content or ""


def whole(found: Any) -> dict[str, Any]:
    """Of a whole answer."""
    return answer(found.choices, found.usage)


def streamed(chunks: Any) -> dict[str, Any]:
    """Of a stream."""
    chunks = list(chunks)
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    return answer(choices, [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)][-1])


def failed() -> str:
    """The class of the error for a model that is not there."""
    try:
        litellm.completion(**chat | {"model": "openai/nobody"})
    except litellm.exceptions.NotFoundError as error:
        return type(error).__name__
    raise AssertionError("it is answered")


response = litellm.responses(
    model="openai/ensemble",
    input=prompt,
    max_output_tokens=int(tokens),
    temperature=0,
    api_base=asked["api_base"],
    api_key="none",
)
found = {
    "chats": {
        "whole": whole(litellm.completion(**chat)),
        "stream": streamed(litellm.completion(**chat, **usage)),
        "asyncio": whole(asyncio.run(litellm.acompletion(**chat))),
    },
    "texts": {
        "whole": whole(litellm.text_completion(**text)),
        "stream": streamed(litellm.text_completion(**text, **usage)),
    },
    "response": response.output[0].content[0].text,
    "error": failed(),
}
print(json.dumps(found))

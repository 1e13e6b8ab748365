"""python ask_langchain_openai.py URL PROMPT TOKENS: LangChain's ChatOpenAI and OpenAI.

Whole, streaming, by asyncio and in a batch; chats also by the responses API.
"""

import asyncio
import json
import sys
from typing import Any

from langchain_openai import ChatOpenAI, OpenAI

url, prompt, tokens = sys.argv[1:]
asked: dict[str, Any] = {
    "base_url": f"{url}/v1",
    "api_key": "none",
    "model": "ensemble",
    "max_tokens": int(tokens),
    "temperature": 0,
}


def answer(message: Any) -> dict[str, Any]:
    """Of a message, or of chunks that were added up to one."""
    used, about = message.usage_metadata, message.response_metadata
    reason = about.get("finish_reason") or about["incomplete_details"]["reason"]
    counts = [used["input_tokens"], used["output_tokens"], used["total_tokens"]]
    return {"text": message.text, "finish_reason": reason, "usage": counts}


def added(chunks: list[Any]) -> Any:
    """What chunks add up to."""
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return total


async def streamed(model: Any) -> list[Any]:
    """The chunks by asyncio."""
    return [chunk async for chunk in model.astream(prompt)]


chat = ChatOpenAI(**asked, stream_usage=True)
responses = ChatOpenAI(**asked, use_responses_api=True)
text = OpenAI(**asked)
found = {
    "chats": {
        "whole": answer(chat.invoke(prompt)),
        "stream": answer(added(list(chat.stream(prompt)))),
        "asyncio": answer(asyncio.run(chat.ainvoke(prompt))),
        "asyncio stream": answer(added(asyncio.run(streamed(chat)))),
        "batch": answer(chat.batch([prompt, prompt])[1]),
        "response": answer(responses.invoke(prompt)),
        "response stream": answer(added(list(responses.stream(prompt)))),
    },
    "texts": {"whole": text.invoke(prompt), "stream": "".join(text.stream(prompt))},
}
print(json.dumps(found))

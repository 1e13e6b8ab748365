"""python ask_llama_index_openai.py URL PROMPT TOKENS: LlamaIndex's OpenAILike, chats and texts."""

import asyncio
import json
import sys
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

url, prompt, tokens = sys.argv[1:]
messages = [ChatMessage(role="user", content=prompt)]


def model(is_chat: bool) -> OpenAILike:
    """The client; one that is no chat model asks /v1/completions."""
    return OpenAILike(
        model="ensemble",
        api_base=f"{url}/v1",
        api_key="none",
        is_chat_model=is_chat,
        max_tokens=int(tokens),
        temperature=0,
    )


async def streamed(call: Any) -> str:
    """The chunks by asyncio, joined."""
    return "".join([chunk.delta or "" async for chunk in await call])


def used(answer: Any) -> list[int]:
    """The counts of an answer."""
    counts = answer.raw.usage
    return [counts.prompt_tokens, counts.completion_tokens, counts.total_tokens]


chat, text = model(is_chat=True), model(is_chat=False)
said, completed = chat.chat(messages), text.complete(prompt)
found = {
    "chats": {
        "whole": said.message.content,
        "stream": "".join(chunk.delta or "" for chunk in chat.stream_chat(messages)),
        "asyncio": asyncio.run(chat.achat(messages)).message.content,
        "asyncio stream": asyncio.run(streamed(chat.astream_chat(messages))),
    },
    "texts": {
        "whole": completed.text,
        "stream": "".join(chunk.delta or "" for chunk in text.stream_complete(prompt)),
        "asyncio": asyncio.run(text.acomplete(prompt)).text,
    },
    "usage": {"chat": used(said), "text": used(completed)},
}
print(json.dumps(found))

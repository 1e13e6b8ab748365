"""python ask_openai_client.py URL PROMPT TOKENS STOP: the package `openai`, all that text needs.

Answers are checked against the package's own types, strictly. Chunks of a completion are not:
its type has no null for `finish_reason`, which OpenAI's own chunks have.
"""

import asyncio
import json
import sys
from typing import Any

import openai

url, prompt, tokens, stop = sys.argv[1:]
options: dict[str, Any] = {
    "base_url": f"{url}/v1",
    "api_key": "none",
}
client = openai.OpenAI(**options, _strict_response_validation=True)
lenient = openai.OpenAI(**options)
chat: Any = {
    "model": "ensemble",
    "messages": [{"role": "user", "content": prompt}],
    "max_completion_tokens": int(tokens),
    "temperature": 0,
}
text: Any = {"model": "ensemble", "prompt": prompt, "max_tokens": int(tokens), "temperature": 0}
response: Any = {
    "model": "ensemble",
    "input": prompt,
    "max_output_tokens": int(tokens),
    "temperature": 0,
    "store": False,
}
usage: Any = {"stream": True, "stream_options": {"include_usage": True}}


def chat_answer(answer: Any) -> dict[str, Any]:
    """Of a whole chat completion."""
    (choice,) = answer.choices
    return _answer(choice.message.content, choice.finish_reason, answer.usage)


def chat_stream(chunks: list[Any]) -> dict[str, Any]:
    """Of a chat completion's chunks."""
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert choices[0].delta.role == "assistant"
    said = "".join(choice.delta.content or "" for choice in choices)
    return _answer(said, choices[-1].finish_reason, chunks[-1].usage)


def text_answer(answer: Any) -> dict[str, Any]:
    """Of a whole completion."""
    (choice,) = answer.choices
    return _answer(choice.text, choice.finish_reason, answer.usage)


def text_stream(chunks: list[Any]) -> dict[str, Any]:
    """Of a completion's chunks."""
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    said = "".join(choice.text for choice in choices)
    return _answer(said, choices[-1].finish_reason, chunks[-1].usage)


def response_answer(answer: Any) -> dict[str, Any]:
    """Of a response."""
    assert answer.incomplete_details.reason == "max_output_tokens"
    counts = [answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens]
    return {"text": answer.output_text, "finish_reason": "length", "usage": counts}


def response_stream(events: list[Any]) -> dict[str, Any]:
    """Of a response's events."""
    kinds = [event.type for event in events]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.incomplete")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    return {**response_answer(events[-1].response), "text": "".join(deltas)}


def _answer(said: str, finish_reason: str, used: Any) -> dict[str, Any]:
    counts = [used.prompt_tokens, used.completion_tokens, used.total_tokens]
    return {"text": said, "finish_reason": finish_reason, "usage": counts}


def blocking() -> dict[str, dict[str, Any]]:
    """Every endpoint by the client that blocks."""
    raw = client.chat.completions.with_raw_response.create(**chat)
    assert raw.status_code == 200
    assert raw.headers["content-type"] == "application/json"
    # The helper takes an answer that its length ended for an error: a stop string ends this one.
    ended = {**chat, "stop": stop, "stream_options": usage["stream_options"]}
    with client.chat.completions.stream(**ended) as stream:
        collected = [event.type for event in stream]
        helper = stream.get_final_completion()
    assert "content.done" in collected
    with client.responses.stream(**response) as events:
        helped = list(events)
    assert any(event.type == "response.output_text.done" for event in helped)
    return {
        "chat": chat_answer(client.chat.completions.create(**chat)),
        "chat stream": chat_stream(list(client.chat.completions.create(**chat, **usage))),
        "chat raw": chat_answer(raw.parse()),
        "stopped chat stream helper": chat_answer(helper),
        "text": text_answer(client.completions.create(**text)),
        "text stream": text_stream(list(lenient.completions.create(**text, **usage))),
        "response": response_answer(client.responses.create(**response)),
        "response stream": response_stream(list(client.responses.create(**response, stream=True))),
        "response stream helper": response_stream(helped),
    }


async def by_asyncio() -> dict[str, dict[str, Any]]:
    """Every endpoint by the client for asyncio, all at once."""

    async def collected(stream: Any) -> list[Any]:
        return [chunk async for chunk in await stream]

    async with openai.AsyncOpenAI(**options) as client:
        answers = await asyncio.gather(
            client.chat.completions.create(**chat),
            collected(client.chat.completions.create(**chat, **usage)),
            client.completions.create(**text),
            collected(client.completions.create(**text, **usage)),
            client.responses.create(**response),
            collected(client.responses.create(**response, stream=True)),
        )
    reads = (chat_answer, chat_stream, text_answer, text_stream, response_answer, response_stream)
    names = ("chat", "chat stream", "text", "text stream", "response", "response stream")
    return {name: read(answer) for name, read, answer in zip(names, reads, answers, strict=True)}


def failed(call: Any, **asked: Any) -> dict[str, Any]:
    """The error that a call raises."""
    try:
        call(**asked)
    except openai.APIStatusError as error:
        return {"class": type(error).__name__, "param": error.param, "code": error.code}
    raise AssertionError(f"{asked} is answered")


def errors() -> dict[str, dict[str, Any]]:
    """What the client raises, by what is wrong."""
    create = client.chat.completions.create
    return {
        "model": failed(create, **chat | {"model": "nobody"}),
        "temperature": failed(create, **chat | {"temperature": -1}),
        "stream": failed(create, **chat | {"max_completion_tokens": 0}, stream=True),
        "field": failed(create, **chat, extra_body={"best": 1}),
        "input": failed(client.responses.create, **response | {"previous_response_id": "resp_1"}),
        "embeddings": failed(client.embeddings.create, model="ensemble", input="text"),
        "one model": failed(client.models.retrieve, model="nobody"),
    }


listed = [model.id for model in client.models.list()]
assert client.models.retrieve(listed[0]).id == listed[0]
logprobs = client.chat.completions.create(**chat, logprobs=True).choices[0].logprobs
assert logprobs
found = {
    "models": listed,
    "blocking": blocking(),
    "asyncio": asyncio.run(by_asyncio()),
    "errors": errors(),
    "tokens": [token.token for token in logprobs.content],
}
print(json.dumps(found))

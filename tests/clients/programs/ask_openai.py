"""python ask_openai.py URL MODEL PROMPT TOKENS: the package `openai`, completions and chat."""

import json
import sys
from typing import Any

from openai import OpenAI

url, model, prompt, tokens = sys.argv[1:]
client = OpenAI(base_url=f"{url}/v1", api_key="none")
asked: dict[str, Any] = {"model": model, "max_tokens": int(tokens), "temperature": 0}
streams: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
messages: Any = [{"role": "user", "content": prompt}]

whole = client.completions.create(prompt=prompt, **asked)
chunks = list(client.completions.create(prompt=prompt, **asked, **streams))
echoed = client.completions.create(prompt=prompt, echo=True, stop=["\n"], seed=1, **asked)
chat = client.chat.completions.create(messages=messages, **asked)
said = list(client.chat.completions.create(messages=messages, **asked, **streams))
print(
    json.dumps(
        {
            "models": [entry.id for entry in client.models.list()],
            "text": whole.choices[0].text,
            "usage": whole.usage.model_dump(),
            "chunks": [chunk.choices[0].text for chunk in chunks if chunk.choices],
            "chunks_usage": chunks[-1].usage.model_dump(),
            "echoed": echoed.choices[0].text,
            "chat": chat.choices[0].message.content,
            "chat_usage": chat.usage.model_dump(),
            "said": [chunk.choices[0].delta.content or "" for chunk in said if chunk.choices],
            "said_usage": said[-1].usage.model_dump(),
        }
    )
)

"""python ask_litellm.py URL PROMPT TOKENS: LiteLLM's `triton/` at URL, which ends in /generate."""

import json
import sys

import litellm

url, prompt, tokens = sys.argv[1:]
asked = {
    "model": "triton/ensemble",
    "api_base": url,
    "messages": [{"role": "user", "content": prompt}],
    "max_tokens": int(tokens),
}
whole = litellm.completion(**asked).choices[0].message.content
chunks = [chunk.choices[0] for chunk in litellm.completion(**asked, stream=True)]
answer = {
    "whole": whole,
    "chunks": [chunk.delta.content or "" for chunk in chunks],
    "finish_reason": chunks[-1].finish_reason,
}
print(json.dumps(answer))

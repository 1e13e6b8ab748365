"""python ask_litellm.py URL PROMPT TOKENS [stream]: LiteLLM at URL, /generate or /infer."""

import json
import sys

import litellm

url, prompt, tokens, *stream = sys.argv[1:]
asked = {
    "model": "triton/ensemble",
    "api_base": url,
    "messages": [{"role": "user", "content": prompt}],
    "max_tokens": int(tokens),
}
whole = litellm.completion(**asked).choices[0].message.content
answer = {"whole": whole}
if stream:
    chunks = [chunk.choices[0] for chunk in litellm.completion(**asked, stream=True)]
    answer["chunks"] = [chunk.delta.content or "" for chunk in chunks]
    answer["finish_reason"] = chunks[-1].finish_reason
print(json.dumps(answer))

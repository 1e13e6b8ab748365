"""Stream an answer over HTTP: python examples/ask_http.py http://localhost:8000 "Once upon a time".

Needs the package httpx.
"""

import json
import sys

import httpx

url, prompt = sys.argv[1:]
body = {"text_input": prompt, "max_tokens": 32, "temperature": 0, "stream": True}
path = f"{url}/v2/models/ensemble/generate_stream"

with httpx.stream("POST", path, json=body, timeout=60) as response:
    if response.status_code != 200:  # the message names the field that was wrong
        sys.exit(json.loads(response.read().removeprefix(b"data: "))["error"])
    for line in response.iter_lines():  # an event is a line "data: {...}" and an empty one
        if not line.startswith("data: "):
            continue
        event = json.loads(line.removeprefix("data: "))
        if "error" in event:  # after the stream began
            sys.exit(event["error"])
        print(event["text_output"], end="", flush=True)  # the chunks, joined, are the answer
print()

"""python ask_llama_index.py GRPC PROMPT TOKENS: LlamaIndex's NvidiaTriton, whole and streaming."""

import json
import sys

from llama_index.llms.nvidia_triton import NvidiaTriton

url, prompt, tokens = sys.argv[1:]
triton = NvidiaTriton(server_url=url, tokens=int(tokens))
whole = triton.complete(prompt).text
chunks = [chunk.delta for chunk in triton.stream_complete(prompt)]
print(json.dumps({"whole": whole, "chunks": chunks}))

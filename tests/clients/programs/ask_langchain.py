"""python ask_langchain.py GRPC PROMPT TOKENS: TritonTensorRTLLM, whole and streaming."""

import json
import os
import sys

from langchain_nvidia_trt import TritonTensorRTLLM, llms


class Errors(llms.StreamingResponseGenerator):
    """The client's own queue; an error in it is printed before the client stumbles over it."""

    def put(self, item: object, block: bool = True, timeout: float | None = None) -> None:
        """As the queue does."""
        if isinstance(item, Exception):
            print(json.dumps({"error": str(item)}), flush=True)
            os._exit(0)
        super().put(item, block, timeout)


llms.StreamingResponseGenerator = Errors
url, prompt, tokens = sys.argv[1:]
triton = TritonTensorRTLLM(
    server_url=url, model_name="ensemble", tokens=int(tokens), load_model=False
)
whole = triton.invoke(prompt)
print(json.dumps({"whole": whole, "chunks": list(triton.stream(prompt))}), flush=True)
os._exit(0)  # its __del__ waits for a stream that is closed

"""The ensemble adds nothing to the engine: its text is the engine library's own, id for id.

The library's arithmetic depends on what else is in the batch, so like is compared with like: alone
with alone, and one request of 32 prompts with the library given the same 32 before its first step.
"""

from typing import Any

import httpx
import pytest
import tritonclient.grpc as triton

from ranks.asked import PROMPTS
from support.asking import ask, grpc_texts, stream
from support.library import ENDING, Library, texts
from trellis.server.process import Server

MAX_TOKENS = 24


@pytest.mark.promise("exact text")
def test_each_prompt_alone_streamed_and_not(http: httpx.Client, library: Library) -> None:
    for prompt in PROMPTS:
        ((expected,),) = texts(library, [prompt], **ENDING)
        assert ask(http, prompt, max_tokens=MAX_TOKENS)["text_output"] == expected
        chunks = stream(http, prompt, max_tokens=MAX_TOKENS)
        assert b"".join(chunks).decode() == expected


def test_thirty_two_at_a_time(server: Server, library: Library) -> None:
    prompts = (PROMPTS * 2)[:32]
    expected = [text for (text,) in texts(library, prompts, **ENDING)]
    with triton.InferenceServerClient(f"localhost:{server.settings.grpc_port}") as client:
        found: Any = grpc_texts(client, prompts, max_tokens=MAX_TOKENS)
    assert found.reshape(-1).tolist() == expected

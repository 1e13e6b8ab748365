"""A seed fixes a text: alone, and in the same company; another seed gives another text."""

from typing import Any

import httpx
import tritonclient.grpc as triton

from support.asking import ask, grpc_texts
from trellis.server.process import Server

PROMPTS = [
    "Once upon a time,",
    "She opened the letter and",
    "안녕하세요 세계",
    "To whom it may concern:",
]
SAMPLED: dict[str, Any] = {"temperature": 1.1, "max_tokens": 16, "end_id": -1}


def test_alone_a_seed_gives_the_same_text_whatever_ran_before(http: httpx.Client) -> None:
    first = [ask(http, prompt, seed=5, **SAMPLED)["text_output"] for prompt in PROMPTS]
    ask(http, "Something else", seed=1, **SAMPLED)
    again = [ask(http, prompt, seed=5, **SAMPLED)["text_output"] for prompt in reversed(PROMPTS)]
    assert again[::-1] == first
    assert ask(http, PROMPTS[0], seed=6, **SAMPLED)["text_output"] != first[0]


def test_in_the_same_company_a_seed_gives_the_same_texts(server: Server) -> None:
    with triton.InferenceServerClient(f"localhost:{server.settings.grpc_port}") as client:
        first, again, other = (
            grpc_texts(client, PROMPTS * 2, seed=seed, **SAMPLED).reshape(-1).tolist()
            for seed in (5, 5, 6)
        )
    assert again == first
    assert first[:4] == first[4:]  # the same prompt and seed, in another row
    assert other != first


def test_without_a_seed_texts_differ(http: httpx.Client) -> None:
    texts = {ask(http, PROMPTS[0], **SAMPLED)["text_output"] for _ in range(4)}
    assert len(texts) > 1


def test_without_a_seed_the_prompts_of_a_batch_differ(server: Server) -> None:
    with triton.InferenceServerClient(f"localhost:{server.settings.grpc_port}") as client:
        texts = grpc_texts(client, PROMPTS[:1] * 4, **SAMPLED).reshape(-1).tolist()
    assert len(set(texts)) > 1


def test_a_seed_of_zero_is_a_seed(http: httpx.Client) -> None:
    texts = {ask(http, PROMPTS[0], seed=0, **SAMPLED)["text_output"] for _ in range(3)}
    assert len(texts) == 1

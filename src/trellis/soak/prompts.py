# SPDX-License-Identifier: Apache-2.0
"""Prompts in twelve scripts, and the one right text of each.

Greedy text may depend in the last digits on what else is in the batch. So each prompt is a line
said many times over, which the model says on; and a text counts only as far as the model is so sure
of every token that last digits cannot choose another.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tritonclient.grpc as triton

from trellis.errors import TrellisError
from trellis.repository.model_config import parameters, parse_config
from trellis.tokenizers import Tokenizer, load

LINES = {
    "Latin": "Ça va très bien, señor Müller.",
    "Hangul": "가나다라마바사",
    "Han": "我有一只老虎。",
    "Kana": "カタカナとひらがな",
    "Cyrillic": "У меня есть тигр.",
    "Arabic": "الطقس جميل اليوم.",
    "Hebrew": "שלום עולם",
    "Devanagari": "आज मौसम अच्छा है।",
    "Thai": "วันนี้อากาศดี",
    "Greek": "Σήμερα ο καιρός είναι καλός.",
    "Georgian": "გამარჯობა მსოფლიო",
    "Emoji": "😀 👍🏽 👩‍👩‍👧‍👦",
}
TIMES = 10
TOKENS, LEAST_TOKENS = 32, 8
SURE = 0.65  # of a token: any other one has at most 0.35, 0.6 less in log probability


class NotRepeatable(TrellisError, RuntimeError):
    """The engine's text cannot be checked: it differs without any fault; the message says how."""


def prompt(script: str) -> str:
    """A line, again and again."""
    return f"{LINES[script]}\n" * TIMES


class Right(NamedTuple):
    """What a script's prompt must be answered with when so many tokens are asked for."""

    text: str
    tokens: int


Ask = Callable[[str, int], tuple[str, list[float]]]  # prompt, tokens -> text, log probabilities


def right_texts(ask: Ask) -> dict[str, Right]:
    """Each script's text, asked alone, then all in company.

    Scripts that the model is not sure of for LEAST_TOKENS are left out. Raises NotRepeatable if
    that is every one, or if a text differs.
    """
    right = {}
    for script in LINES:
        _, log_probs = ask(prompt(script), TOKENS)
        tokens = sure_tokens(log_probs)
        if tokens >= LEAST_TOKENS:
            right[script] = Right(ask(prompt(script), tokens)[0], tokens)
    if not right:
        raise NotRepeatable("the model is sure of no script's text; soak another one")
    with ThreadPoolExecutor(len(right)) as pool:
        asked = pool.map(ask, map(prompt, right), [one.tokens for one in right.values()])
        for script, (again, _) in zip(right, asked, strict=True):
            if again != right[script].text:
                raise NotRepeatable(f"{script}: {right[script].text!r} alone, then {again!r}")
    return right


def sure_tokens(log_probs: list[float]) -> int:
    """How many tokens come before the first that the model is not sure of.

    >>> sure_tokens([-0.1, -0.2, -0.9, -0.1])
    2
    """
    unsure = (n for n, value in enumerate(log_probs) if value < math.log(SURE))
    return next(unsure, len(log_probs))


def decoded(
    repo: Path, client: triton.InferenceServerClient, right: dict[str, Right]
) -> dict[str, str]:
    """Each script's text by the registry's decoder, from the ids that the engine gives.

    Asks `tensorrt_llm` directly, which Python engines alone answer.
    """
    tokenizer = _tokenizer(repo)
    texts = {}
    for number, (script, (_, tokens)) in enumerate(right.items()):
        ids = _generate(client, tokenizer.encode(prompt(script)), tokens, number)
        texts[script] = tokenizer.decode(ids)
    return texts


def _tokenizer(repo: Path) -> Tokenizer:
    config = parse_config((repo / "preprocessing" / "config.pbtxt").read_text(encoding="utf-8"))
    settings = parameters(config)
    options = {name: settings[name] for name in ("add_bos_token",) if settings.get(name)}
    folder = repo / "preprocessing" / "1" / (settings["tokenizer_dir"] or "tokenizer")
    return load(settings["tokenizer_type"], folder, options)


def _generate(
    client: triton.InferenceServerClient, ids: list[int], tokens: int, number: int
) -> list[int]:
    made: list[int] = []
    done: list[object] = []
    values: dict[str, tuple[str, Any]] = {
        "input_ids": ("INT32", np.array([ids], np.int32)),
        "input_lengths": ("INT32", np.array([[len(ids)]], np.int32)),
        "request_output_len": ("INT32", np.array([[tokens]], np.int32)),
        "end_id": ("INT32", np.array([[-1]], np.int32)),
        "stream_key": ("UINT64", np.array([[(number + 1) << 16]], np.uint64)),
    }
    inputs = []
    for name, (dtype, array) in values.items():
        inputs.append(triton.InferInput(name, list(array.shape), dtype))
        inputs[-1].set_data_from_numpy(array)

    def take(result: triton.InferResult | None, error: Exception | None) -> None:
        if result is not None:
            ids: Any = result.as_numpy("output_ids")
            made.extend(ids.reshape(-1).tolist())
        done.append(error)

    client.start_stream(take)
    client.async_stream_infer("tensorrt_llm", inputs)
    client.stop_stream()
    if done != [None]:
        raise NotRepeatable(f"tensorrt_llm answered {done}")
    return made

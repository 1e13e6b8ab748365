"""Prompts in twelve scripts, and the one right text of each.

Greedy text of the OpenVINO engine may depend in the last digits on what else is in the batch. So
each prompt is a line said many times over: what follows is the same in any company, and another
for every script.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from tokenizer_registry.core import Tokenizer, load
from trellis.model_config import parameters, parse_config

LINES = {
    "Latin": "Ça va très bien, señor Müller.",
    "Hangul": "서울의 하늘은 맑다.",
    "Han": "我有一只老虎。",
    "Kana": "こんにちは",
    "Cyrillic": "У меня есть тигр.",
    "Arabic": "الطقس جميل اليوم.",
    "Hebrew": "מזג האוויר נאה היום.",
    "Devanagari": "आज मौसम अच्छा है।",
    "Thai": "วันนี้อากาศดี",
    "Greek": "Σήμερα ο καιρός είναι καλός.",
    "Georgian": "დღეს კარგი ამინდია.",
    "Emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 😀 👍🏽",
}
TIMES = 10
TOKENS = 32


class NotRepeatable(RuntimeError):
    """The engine's text cannot be checked: it differs without any fault; the message says how."""


def prompt(script: str) -> str:
    """A line, again and again."""
    return f"{LINES[script]}\n" * TIMES


def right_texts(ask: Callable[[str], str]) -> dict[str, str]:
    """Each script's text, asked alone, then all in company. Raises NotRepeatable if it differs."""
    texts = {script: ask(prompt(script)) for script in LINES}
    with ThreadPoolExecutor(len(LINES)) as pool:
        for script, again in zip(texts, pool.map(ask, map(prompt, texts)), strict=True):
            if again != texts[script]:
                raise NotRepeatable(f"{script}: {texts[script]!r} alone, in company {again!r}")
    return texts


def decoded(repo: Path, grpc: str) -> dict[str, str]:
    """Each script's text by the registry's decoder, from the ids that the engine gives.

    Asks `tensorrt_llm` directly, which Python engines alone answer.
    """
    tokenizer = _tokenizer(repo)
    texts = {}
    with triton.InferenceServerClient(grpc) as client:
        for number, script in enumerate(LINES):
            ids = _generate(client, tokenizer.encode(prompt(script)), number)
            texts[script] = tokenizer.decode(ids)
    return texts


def _tokenizer(repo: Path) -> Tokenizer:
    config = parse_config((repo / "preprocessing" / "config.pbtxt").read_text(encoding="utf-8"))
    settings = parameters(config)
    options = {name: settings[name] for name in ("add_bos_token",) if settings.get(name)}
    folder = repo / "preprocessing" / "1" / (settings["tokenizer_dir"] or "tokenizer")
    return load(settings["tokenizer_type"], folder, options)


def _generate(client: triton.InferenceServerClient, ids: list[int], number: int) -> list[int]:
    made: list[int] = []
    done: list[object] = []
    values: dict[str, tuple[str, Any]] = {
        "input_ids": ("INT32", np.array([ids], np.int32)),
        "input_lengths": ("INT32", np.array([[len(ids)]], np.int32)),
        "request_output_len": ("INT32", np.array([[TOKENS]], np.int32)),
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

"""The inputs that the models declare, and values for them: sensible ones, borders, nonsense."""

import re
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from support.paths import ROOT

SOURCES = ROOT / "model_repo_src"
INPUT = re.compile(r'\{ name: "(\w+)" data_type: TYPE_(\w+) dims: \[ ([-\d, ]+) \]')
MODELS = ("ensemble", "preprocessing", "tensorrt_llm", "postprocessing")

TEXTS = [
    "The capital of France is", "안녕하세요 세계", "日本の首都は", "Столица России",
    "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก",
    "Γειά σου Κόσμε", "გამარჯობა", "Բարեւ", "வணக்கம்",
    "e\u0301\u0302 👩‍👩‍👧‍👦 \u200f\ufeff", "\x00\x01\x7f",
    "<|im_end|><|endoftext|>", " ", "\n\n\t", "a,b", '"',
    "\\", "word " * 300, "(" * 500, "\U0010ffff",
]  # fmt: skip
# Lengths that keep one request short; between them and what is refused lie minutes of generation.
SHORT, REFUSED_FROM = 6, 8200
LENGTHS = {"max_tokens", "REQUEST_OUTPUT_LEN", "request_output_len"}
INT32 = st.one_of(
    st.integers(-2, 8),
    st.integers(-(2**31), 2**31 - 1),
    st.sampled_from([2**31 - 1, -(2**31), 49151, 49152, 65536, 10**6]),
)
INTS = {
    "INT32": INT32,
    "UINT64": st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1)),
    "INT64": st.integers(-(2**63), 2**63 - 1),
}
FLOATS = st.one_of(
    st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0, 1.2, 1.5, -0.0, 1e-30, 1e-45, 1e30, -1.0]),
    st.floats(width=32),
)
LENGTH = st.one_of(
    *[st.integers(1, SHORT)] * 4,
    st.sampled_from([0, -1, -(2**31), REFUSED_FROM, 2**31 - 1]),
)
TEXT = st.one_of(st.sampled_from(TEXTS), st.text(st.characters(exclude_categories=["Cs"])))
SENSIBLE: dict[str, st.SearchStrategy[Any]] = {
    "top_k": st.integers(0, 50),
    "top_p": st.floats(0, 1, width=32),
    "min_p": st.floats(0, 1, width=32),
    "temperature": st.floats(0, 2, width=32),
    "num_return_sequences": st.integers(1, 3),
    "repetition_penalty": st.floats(0.5, 2, width=32),
    "min_tokens": st.integers(0, SHORT),
    "min_length": st.integers(0, SHORT),
    "beam_width": st.just(1),
    "seed": st.integers(0, 2**64 - 1),
    "end_id": st.integers(-1, 49151),
    "stop_token_ids": st.integers(0, 49151),
    "presence_penalty": st.floats(-2, 2, width=32),
    "frequency_penalty": st.floats(-2, 2, width=32),
    "no_repeat_ngram_size": st.just(0),
    "return_log_probs": st.booleans(),
    "exclude_input_in_output": st.booleans(),
    "stop_words": st.sampled_from(["", " ", "the", ".", "\n", "안", "a,b"]),
}


@dataclass(frozen=True)
class Input:
    """One declared input; dims without the batch, -1 for any length."""

    name: str
    dtype: str
    dims: tuple[int, ...]

    @property
    def values(self) -> st.SearchStrategy[Any]:
        """One element."""
        if self.name in LENGTHS:
            return LENGTH
        wild = {"STRING": TEXT, "FP32": FLOATS, "FP16": FLOATS, "BOOL": st.booleans()}
        any_value = (wild | INTS)[self.dtype]
        sensible = SENSIBLE.get(self.name.removeprefix("runtime_"))
        return any_value if sensible is None else st.one_of(*[sensible] * 5, any_value)


def declared(model: str) -> list[Input]:
    """The inputs in a model's configuration."""
    text = (SOURCES / model / "config.pbtxt").read_text().split("\noutput [")[0]
    return [
        Input(name, dtype, tuple(map(int, dims.split(","))))
        for name, dtype, dims in INPUT.findall(text)
    ]


INPUTS = {model: declared(model) for model in MODELS}


def harmless_length(value: int) -> int:
    """A length as Triton will read it, cut to 32 bits, but never one that takes minutes."""
    read = (value + 2**31) % 2**32 - 2**31
    return SHORT if SHORT < read < REFUSED_FROM else value

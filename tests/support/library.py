"""The engine library driven directly, on the demo engine's files, with the engine's properties."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

from support.engines import END, ENGINE
from trellis.tokenizers import Tokenizer, load

MAX_TOKENS = {"openvino": "max_new_tokens", "vllm": "max_tokens"}  # the library's own name
ENDINGS: dict[str, dict[str, Any]] = {
    "openvino": {"eos_token_id": END, "stop_token_ids": {END}},
    "vllm": {"stop_token_ids": [END]},
}
ENDING = ENDINGS.get(ENGINE, {})  # a request that the model's own end ends


class Output(NamedTuple):
    """One sequence: its ids, their log probabilities where asked for, and what ranks it."""

    ids: list[int]
    log_probs: list[float]
    score: float


class Library(Protocol):
    """A library asked in texts."""

    tokenizer: Tokenizer

    def ask(self, prompts: list[str], **fields: Any) -> list[list[Output]]:
        """Each prompt's outputs, as many as it has sequences, all prompts asked at once.

        `fields`: those of the library's own settings of a request.
        """

    def close(self) -> None:
        """End its processes."""


def texts(library: Library, prompts: list[str], **fields: Any) -> list[list[str]]:
    """The texts of `ask`."""
    return [[text(library, output) for output in row] for row in library.ask(prompts, **fields)]


def text(library: Library, output: Output) -> str:
    """The text of one output; its end token has none."""
    return library.tokenizer.decode(output.ids)


def open_library(engine: Path, tokenizer: Path) -> Library:
    """The library of TEST_ENGINE on the demo engine's folder."""
    if ENGINE == "vllm":
        from support.vllm_library import VllmLibrary

        return VllmLibrary(engine, tokenizer)
    from support.openvino_library import OpenVinoLibrary

    (model,) = engine.glob("*.gguf")
    return OpenVinoLibrary(model, load("gpt2", tokenizer))

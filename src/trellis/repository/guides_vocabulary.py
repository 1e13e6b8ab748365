# SPDX-License-Identifier: Apache-2.0
"""The vocabulary that the C++ backend's xgrammar reads, written by `make repo`.

The form is that of `examples/generate_xgrammar_tokenizer_info.py` of TensorRT-LLM 0.17 to 1.2: a
JSON object of the tokens in the order of their ids, of what the library `tokenizers` saves of the
tokenizer, and of the ids that end an answer.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from trellis.bounded_files import VOCABULARY_BYTES, read_bounded
from trellis.contract.wiring_names import GUIDES
from trellis.errors import TrellisError
from trellis.tokenizers import TokenizerError, load
from trellis.tokenizers.fast import FastTokenizer

XGRAMMAR = "xgrammar"
PATH = "xgrammar_tokenizer_info_path"
FILE = "xgrammar_tokenizer_info.json"  # in the version folder of `tensorrt_llm`
VOCABULARY, TOKENIZER, ENDS = "encoded_vocab", "tokenizer_str", "stop_token_ids"
SCRIPT = "TensorRT-LLM's examples/generate_xgrammar_tokenizer_info.py"


class GuidesVocabularyError(TrellisError, ValueError):
    """A vocabulary that guides cannot be followed with; the message names the setting."""


def made_vocabulary(
    settings: Mapping[str, str], tokenizer_type: str, folder: Path, type_file: Path | None
) -> str:
    """The file's text where settings ask for guides and name no file of their own; '' if not.

    `folder` and `type_file`: the tokenizer's. Raises GuidesVocabularyError.
    """
    backend = settings.get(GUIDES, "")
    if backend not in ("", XGRAMMAR):
        raise GuidesVocabularyError(
            f"SET: {GUIDES}: {backend[:40]!r} is none of this backend's; say {XGRAMMAR}"
        )
    if not backend or settings.get(PATH):
        return ""
    try:
        tokenizer = load(tokenizer_type, folder, types_folder=type_file and type_file.parent)
    except TokenizerError as error:
        raise GuidesVocabularyError(f"SET: {GUIDES}: the vocabulary: {error}") from error
    if not isinstance(tokenizer, FastTokenizer):
        raise GuidesVocabularyError(
            f"SET: {GUIDES}: the vocabulary cannot be written for TOKENIZER={tokenizer_type}, which"
            f" is not of the library tokenizers; write it with {SCRIPT} and add SET={PATH}:FILE"
        )
    if not tokenizer.end_ids:
        raise GuidesVocabularyError(
            f"SET: {GUIDES}: {folder} names no token that ends an answer, so that no answer could"
            " end after its guide; add eos_token_id to its generation_config.json"
        )
    return json.dumps(_vocabulary(tokenizer))


def _vocabulary(tokenizer: FastTokenizer) -> dict[str, object]:
    tokens = [""] * tokenizer.vocab_size
    for token, number in tokenizer.backend.get_vocab(with_added_tokens=True).items():
        tokens[number] = token
    return {
        VOCABULARY: tokens,
        TOKENIZER: tokenizer.backend.to_str(),
        ENDS: list(tokenizer.end_ids),
    }


def check_named(settings: Mapping[str, str]) -> None:
    """Raise GuidesVocabularyError where settings name a file that the backend could not read."""
    if not settings.get(PATH):
        return
    file = Path(settings[PATH])
    try:
        found = json.loads(read_bounded(file, VOCABULARY_BYTES))
    except (OSError, ValueError, TrellisError) as error:
        raise GuidesVocabularyError(f"SET: {PATH}: {file}: cannot be read: {error}") from error
    wanted = {VOCABULARY: list, TOKENIZER: str, ENDS: list}
    for name, kind in wanted.items():
        if not isinstance(found, dict) or not isinstance(found.get(name), kind):
            raise GuidesVocabularyError(
                f"SET: {PATH}: {file}: has no {name}; write it with {SCRIPT}, or leave {PATH} out:"
                " `make repo` then writes it"
            )

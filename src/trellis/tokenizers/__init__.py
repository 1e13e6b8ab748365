# SPDX-License-Identifier: Apache-2.0
"""What every tokenizer_type shares: the interface, the registry, decoding, word lists, chat.

>>> from trellis.tokenizers import load
>>> tokenizer = load("gpt2", "gpt2-tokenizer", {"add_bos_token": "true"})
>>> tokenizer.encode("Hello world")
[50256, 15496, 995]
>>> tokenizer.decode([15496, 995])
'Hello world'

Left out on purpose: anything that imports torch or transformers (only the type `auto` does).
"""

from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.registry import known_types, load
from trellis.tokenizers.stream import StreamDecoder
from trellis.tokenizers.tokenizer import Tokenizer
from trellis.tokenizers.words import parse_words, to_word_list

__all__ = [
    "StreamDecoder",
    "Tokenizer",
    "TokenizerError",
    "known_types",
    "load",
    "parse_words",
    "to_word_list",
]

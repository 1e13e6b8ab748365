# SPDX-License-Identifier: Apache-2.0
"""Text in the middle of a sequence: the ids of a stop word where it stands inside an answer.

    'stop'     -> st | op       (a prompt 'stop' would be '▁stop': the tokenizer puts a space first)
    ' stop'    -> ▁stop

The tokenizer is the file's own, without whatever it puts before a text or takes from its ends.
"""

from typing import Any

import tokenizers
from tokenizers import normalizers, pre_tokenizers

from trellis.tokenizers.decoding import state_of

# Steps that act on the ends of a text, which a fragment has not.
_AT_THE_ENDS = ("Prepend", "Strip")


def fragment_backend(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A tokenizer for fragments, which shares the vocabulary of `backend`; special tokens parse."""
    fragments = tokenizers.Tokenizer(backend.model)
    normalizer = _normalizer(backend.normalizer)
    if normalizer is not None:
        fragments.normalizer = normalizer
    pre_tokenizer = _pre_tokenizer(backend.pre_tokenizer)
    if pre_tokenizer is not None:
        fragments.pre_tokenizer = pre_tokenizer
    added = backend.get_added_tokens_decoder()
    fragments.add_tokens([added[token] for token in sorted(added)])
    return fragments


def _normalizer(part: Any) -> Any:
    """A normalizer without the steps that act on a text's ends; None if no step is left."""
    state = state_of(part)
    if state.get("type") == "Sequence":
        steps = [_normalizer(part[index]) for index in range(len(state["normalizers"]))]
        kept = [step for step in steps if step is not None]
        return normalizers.Sequence(kept) if kept else None
    return None if state.get("type") in (None, *_AT_THE_ENDS) else part


def _pre_tokenizer(part: Any) -> Any:
    """A pre-tokenizer that puts no space before a text and drops none; None if no step is left."""
    state = state_of(part)
    kind = state.get("type")
    if kind == "Sequence":
        steps = [_pre_tokenizer(part[index]) for index in range(len(state["pretokenizers"]))]
        kept = [step for step in steps if step is not None]
        return pre_tokenizers.Sequence(kept) if kept else None
    if kind == "ByteLevel":
        return pre_tokenizers.ByteLevel(
            add_prefix_space=False, use_regex=state.get("use_regex", True)
        )
    if kind == "Metaspace":
        return pre_tokenizers.Metaspace(state["replacement"], "never", state.get("split", True))
    return None if kind in (None, "WhitespaceSplit") else part

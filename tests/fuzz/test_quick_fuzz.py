# SPDX-License-Identifier: Apache-2.0
"""Ids of fastokens against those of tokenizers: FUZZ_LINES texts for each vocabulary.

Five for each request that FUZZ_REQUESTS= asks for, if nobody says; FUZZ_LINES=1000000 takes some
minutes for a vocabulary. One in 20,000 has 100,000 characters.
"""

import os
import random

import pytest

from fuzz.batches import REQUESTS, SEED
from support.fuzzed_texts import line, long_line
from support.made_vocabularies import ids_or_panic, make
from support.tokenizer_folders import TYPE_OF, Folders
from trellis.tokenizers import load
from trellis.tokenizers.encoder import BackendEncoder
from trellis.tokenizers.fast import FastTokenizer
from trellis.tokenizers.quick import QuickEncoder

pytest.importorskip("fastokens")

LINES = int(os.environ.get("FUZZ_LINES", str(5 * REQUESTS)))
VOCABULARIES = ("gpt2", "smollm2", "llama3", "llama4", "qwen", "qwen36", "tekken")
A_BATCH = 500
A_LONG_ONE = 40  # batches between two long texts
FOR_EACH_MADE = 100  # lines for each vocabulary that is made up


@pytest.mark.parametrize("parse", ["true", "false"])
@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_real_vocabulary(folders: Folders, name: str, parse: str) -> None:
    tokenizer = load(TYPE_OF[name], folders[name], {"parse_special_tokens": parse})
    assert isinstance(tokenizer, FastTokenizer)
    encoder = QuickEncoder(tokenizer.backend)
    encoder.prepare()
    assert encoder.wait()
    slow = BackendEncoder(tokenizer.backend)
    contents = [str(t.content) for t in tokenizer.backend.get_added_tokens_decoder().values()]
    added = [*contents[:30], *contents[-30:]]
    rng = random.Random(f"{SEED} {name} {parse}")
    count = LINES if parse == "true" else LINES // 10
    for number in range(-(-count // A_BATCH)):
        texts = [line(rng, added) for _ in range(A_BATCH)]
        if number % A_LONG_ONE == 0:
            texts.append(long_line(rng, added))
        for text, ids in zip(texts, slow.encode_batch(texts), strict=True):
            # One by one: a batch goes to tokenizers for one of its texts.
            assert encoder.encode_batch([text]) == [ids], repr(text)
    assert encoder._quick is not None


def test_made_up_vocabularies() -> None:
    quick = 0
    for seed in range(SEED * 1_000_000, SEED * 1_000_000 + max(LINES // FOR_EACH_MADE, 10)):
        made = make(seed)
        encoder = QuickEncoder(made.backend)
        encoder.prepare()
        quick += encoder.wait()
        slow = BackendEncoder(made.backend)
        rng = random.Random(seed)
        for _ in range(FOR_EACH_MADE):
            text = line(rng, made.added)
            assert ids_or_panic(encoder, text) == ids_or_panic(slow, text), f"{seed}: {text!r}"
    assert quick

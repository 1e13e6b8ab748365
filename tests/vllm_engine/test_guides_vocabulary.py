# SPDX-License-Identifier: Apache-2.0
"""The vocabulary that `make repo` writes for the C++ backend, read by xgrammar itself.

The backend has it read as `TokenizerInfo` is read here, which is in vLLM's environment.
"""

import json
from pathlib import Path

import xgrammar

from trellis.repository.guides_vocabulary import made_vocabulary
from trellis.tokenizers import load


def test_xgrammar_follows_a_guide_with_it(demo_engine: tuple[Path, Path]) -> None:
    text = made_vocabulary({"guided_decoding_backend": "xgrammar"}, "gpt2", demo_engine[1], None)
    found = json.loads(text)
    how = xgrammar.TokenizerInfo._detect_metadata_from_hf(found["tokenizer_str"])
    info = xgrammar.TokenizerInfo(
        found["encoded_vocab"],
        vocab_type=xgrammar.VocabType(how["vocab_type"]),
        add_prefix_space=how["add_prefix_space"],
        stop_token_ids=found["stop_token_ids"],
    )
    compiled = xgrammar.GrammarCompiler(info).compile_grammar('root ::= "{\\"가\\": " [0-9] "}"')
    matcher = xgrammar.GrammarMatcher(compiled)
    tokenizer = load("gpt2", demo_engine[1])
    assert not matcher.accept_token(tokenizer.encode_bare("no")[0])
    for token in tokenizer.encode_bare('{"가": 7}'):
        assert matcher.accept_token(token)
    assert not matcher.is_terminated()
    assert matcher.accept_token(tokenizer.end_ids[0])
    assert matcher.is_terminated()

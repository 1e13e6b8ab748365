# SPDX-License-Identifier: Apache-2.0
"""The tokenizer: its packages are here, and it fits the engine, vocabulary and special ids."""

from collections.abc import Iterator, Sequence

from trellis.preflight.check import Check
from trellis.preflight.repository import Repository

# Engines pad their vocabulary: to a multiple of 64 or of the ranks, or to a round number.
MOST_PADDING = 0.05
# Tokens beyond the engine's vocabulary (images, sounds), where the tokenizer does not tell them.
MOST_BEYOND = 0.01
OWN_PACKAGE = "trellis"  # nothing to install: a file of the repository is missing


def check_vocabulary(repository: Repository) -> Iterator[Check]:
    """The tokenizer loads, its ids are the engine's, and so are end_id and pad_id."""
    kind = repository.parameter("preprocessing", "tokenizer_type")
    facts = repository.tokenizer
    package = facts.get("missing", "").partition(".")[0]
    if package not in ("", OWN_PACKAGE):
        yield missing_package(kind, package, repository.python)
        return
    if "error" in facts:
        yield Check(
            "tokenizer",
            facts["error"],
            f"a tokenizer of type {kind}",
            False,
            "`make repo SET=trust_remote_code:true`, if you trust it"
            if "SET=trust_remote_code:true" in facts["error"]
            else "choose TOKENIZER= and TOKENIZER_DIR= for the engine's model",
        )
        return
    text = repository.parameter("preprocessing", "vocab_size")
    engine = int(text) if text.isdigit() else None
    yield compare_vocabularies(kind, int(facts["vocab_size"]), engine, facts["text_vocab_size"])
    yield check_ids(facts["end_ids"], facts["pad_id"], engine)


def missing_package(kind: str, package: str, python: str) -> Check:
    """What the tokenizer_type imports is not installed for the interpreter that will serve."""
    return Check(
        "tokenizer",
        f"no package {package} for {python}",
        f"{package}, which the tokenizer_type {kind} imports",
        False,
        f"install it ({python} -m pip install {package}), or choose another TOKENIZER=",
    )


def compare_vocabularies(
    kind: str, tokenizer: int, engine: int | None, text: int | None = None
) -> Check:
    """Every id that a text can have is the engine's, and the engine has few others.

    Args:
        tokenizer: how many ids the tokenizer has.
        engine: how many the engine has, None if it does not say.
        text: how many the tokenizer has without added tokens, None if it does not say. Tokens of
            images and sounds may lie beyond the engine's vocabulary: a prompt that names one is
            refused, and nothing else makes them.
    """
    found = f"{tokenizer} ids ({kind})"
    if engine is None:
        return Check("vocabulary", found, "the engine does not say", True)
    if tokenizer <= engine:
        ok = tokenizer >= engine * (1 - MOST_PADDING)
        needed = f"{engine} ids, or a few less"
    else:
        ok = tokenizer <= engine * (1 + MOST_BEYOND) if text is None else text <= engine
        ok = ok and (text is None or text >= engine * (1 - MOST_PADDING))
        needed = f"{engine} ids, but for added tokens"
    remedy = "" if ok else "this is another model's tokenizer: set TOKENIZER= and TOKENIZER_DIR="
    return Check("vocabulary", found, needed, ok, remedy)


def check_ids(ends: Sequence[int], pad: int | None, engine: int | None) -> Check:
    """There is an id that ends an answer, and special ids are ids of the engine.

    Args:
        ends: what ends an answer.
        pad: what fills a batch, if the tokenizer has it.
        engine: how many ids the engine has, None if it does not say.
    """
    if not ends:
        remedy = (
            "answers would go on to max_tokens: name eos_token in tokenizer_config.json, or add"
            " generation_config.json with eos_token_id"
        )
        return Check("special ids", "no end_id", "an id that ends an answer", False, remedy)
    named = {"end_id": list(ends), **({} if pad is None else {"pad_id": [pad]})}
    found = ", ".join(f"{name} {', '.join(map(str, ids))}" for name, ids in named.items())
    if engine is None:
        return Check("special ids", found, "the engine does not say", True)
    outside = [name for name, ids in named.items() if not all(0 <= i < engine for i in ids)]
    remedy = f"{', '.join(outside)}: choose the tokenizer of the engine's model" if outside else ""
    return Check("special ids", found, f"0 to {engine - 1}", not outside, remedy)

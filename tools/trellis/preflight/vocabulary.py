"""The tokenizer: its packages are here, and it fits the engine, vocabulary and special ids."""

from collections.abc import Iterator

from trellis.preflight.check import Check
from trellis.preflight.repository import Repository

# Engines pad their vocabulary: to a multiple of 64 or of the ranks, or to a round number.
MOST_PADDING = 0.05
OWN_PACKAGE = "tokenizer_registry"  # nothing to install: a file of the repository is missing


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
            "choose TOKENIZER= and TOKENIZER_DIR= for the engine's model",
        )
        return
    text = repository.parameter("preprocessing", "vocab_size")
    engine = int(text) if text.isdigit() else None
    yield compare_vocabularies(kind, int(facts["vocab_size"]), engine)
    ids = {"end_id": facts["eos_id"], "pad_id": facts["pad_id"]}
    yield check_ids({name: value for name, value in ids.items() if value is not None}, engine)


def missing_package(kind: str, package: str, python: str) -> Check:
    """What the tokenizer_type imports is not installed for the interpreter that will serve."""
    return Check(
        "tokenizer",
        f"no package {package} for {python}",
        f"{package}, which the tokenizer_type {kind} imports",
        False,
        f"install it ({python} -m pip install {package}), or choose another TOKENIZER=",
    )


def compare_vocabularies(kind: str, tokenizer: int, engine: int | None) -> Check:
    """As many ids as the engine has, or a few less, where the engine's vocabulary is padded."""
    found = f"{tokenizer} ids ({kind})"
    if engine is None:
        return Check("vocabulary", found, "the engine does not say", True)
    needed = f"{engine} ids, or a few less"
    if engine * (1 - MOST_PADDING) <= tokenizer <= engine:
        return Check("vocabulary", found, needed, True)
    remedy = "this is another model's tokenizer: set TOKENIZER= and TOKENIZER_DIR="
    return Check("vocabulary", found, needed, False, remedy)


def check_ids(ids: dict[str, int], engine: int | None) -> Check:
    """Special ids of the tokenizer are ids of the engine."""
    found = ", ".join(f"{name} {value}" for name, value in ids.items()) or "none"
    if engine is None:
        return Check("special ids", found, "the engine does not say", True)
    outside = [name for name, value in ids.items() if not 0 <= value < engine]
    remedy = f"{', '.join(outside)}: choose the tokenizer of the engine's model" if outside else ""
    return Check("special ids", found, f"0 to {engine - 1}", not outside, remedy)

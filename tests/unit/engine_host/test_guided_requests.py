"""What may end an answer that a guide holds."""

from pathlib import Path

import pytest

from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.guided_requests import (
    check_ends,
    check_guided,
    check_stop_words,
)
from trellis.errors import RequestError
from trellis.guides.letters import rare_letters
from trellis.guides.translate import translate
from trellis.pipeline.guide_letters import check_letters
from trellis.tokenizers import Tokenizer, load


@pytest.fixture(scope="module")
def smollm2(demo_engine: tuple[Path, Path]) -> Tokenizer:
    """Its vocabulary lacks U+0004, U+0013, U+001D and two bytes of planes 4 to 11."""
    return load("gpt2", demo_engine[1])


def guided(kind: str = "ebnf_grammar", **more: int | tuple[int, ...]) -> Sampling:
    sampling = Sampling(guide_type=kind, guide="root ::= []")
    for name, value in more.items():
        setattr(sampling, name, value)
    return sampling


@pytest.mark.parametrize(
    ("sampling", "name"),
    [(guided(end_id=5), "end_id"), (guided(end_id=2, stop_token_ids=(0, 7)), "stop_token_ids")],
)
def test_an_end_that_is_not_the_models_own_is_rejected(sampling: Sampling, name: str) -> None:
    with pytest.raises(RequestError, match=rf"^{name}: [57] could end .* own \(0, 2\)"):
        check_ends(sampling, (2, 0))


def test_the_models_own_ends_and_none_are_taken() -> None:
    check_ends(guided(end_id=2, stop_token_ids=(0,)), (2, 0))
    check_ends(guided(end_id=-1), ())


def test_stop_words_are_for_free_text_alone() -> None:
    check_stop_words(guided("structural_tag"), ["a"])
    check_stop_words(guided(), [])
    check_stop_words(Sampling(), ["a"])
    with pytest.raises(RequestError, match=r"^stop_words: "):
        check_stop_words(guided(), ["a"])


@pytest.mark.parametrize(
    ("kind", "guide"),
    [
        ("regex", "a[0-9]\\x04"),
        ("regex", "a[\\x13\\x1d]"),
        ("regex", "a(\\x04|\\x13)"),
        ("ebnf_grammar", "root ::= [\\U00040000-\\U00040010]"),
        ("json_schema", '{"enum": ["a", "\U00040000"]}'),
        ("ebnf_grammar", 'root ::= "a" ("b" | "\\x1d")'),
        (
            "structural_tag",
            '{"type": "structural_tag", "format": {"type": "tag", "begin": "\\u0013",'
            ' "content": {"type": "any_text"}, "end": "x"}}',
        ),
        (
            "structural_tag",
            '{"type": "structural_tag", "format": {"type": "regex", "pattern": "\\\\x04"}}',
        ),
    ],
)
def test_a_text_that_the_models_tokens_cannot_write_is_rejected(
    smollm2: Tokenizer, kind: str, guide: str
) -> None:
    made = translate(kind, guide)
    sampling = Sampling(guide_type=made.kind, guide=made.text)
    with pytest.raises(RequestError, match=r"guide: this model has no tokens for U\+(0|4)0"):
        check_guided(sampling, smollm2)


def tag(format_: str) -> str:
    return f'{{"type": "structural_tag", "format": {format_}}}'


def test_every_other_text_is_taken(smollm2: Tokenizer, llama: Tokenizer) -> None:
    for kind, guide in (
        ("regex", "[\\x04-\\x20]"),
        ("regex", "[\\x04a]"),
        ("regex", "[^ -~]{2}"),
        ("ebnf_grammar", "root ::= [\\ud7f0-\\ue010]"),
        ("structural_tag", tag('{"type": "any_text", "excludes": ["\\u0004"]}')),
    ):
        made = translate(kind, guide)
        check_guided(Sampling(guide_type=made.kind, guide=made.text), smollm2)
    made = translate("json_schema", '{"enum": ["\\u0004", "début", "안녕 😀", "\u200d", "é"]}')
    assert {("é",), ("안",), ("😀",), ("\u200d",)} <= rare_letters(made)
    check_guided(Sampling(guide_type=made.kind, guide=made.text), smollm2)
    check_letters(
        [(each,) for each in "\x04\x13\x7f\x80\U00040000\U0010fffd"], llama
    )  # a token for each byte

"""What may end an answer that a guide holds."""

import pytest

from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.guided_requests import check_ends, check_stop_words
from trellis.errors import RequestError


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

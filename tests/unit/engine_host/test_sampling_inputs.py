# SPDX-License-Identifier: Apache-2.0
"""Guides, biases and adapters as they come in tensors, a row at a time."""

from typing import Any

import numpy as np
import pytest

from trellis.engine_host.sampling_inputs import read_sampling
from trellis.errors import RequestError
from trellis.guides.translate import translate

LENGTH = {"request_output_len": np.array([[4], [4]], np.int32)}


def read(row: int = 0, **sent: Any) -> Any:
    return read_sampling(LENGTH | sent, row, "engine")


def texts(*rows: bytes) -> np.ndarray:
    return np.array([[row] for row in rows], object)


def test_each_row_has_its_own_guide() -> None:
    kinds = texts(b"regex", b"json")
    guides = texts("é+".encode(), b"")
    both: dict[str, Any] = {"guided_decoding_guide_type": kinds, "guided_decoding_guide": guides}
    made = [read(row, **both) for row in (0, 1)]
    given = [(each.guide_type, each.guide) for each in made]
    assert given == [translate("regex", "é+"), translate("json", "")]


@pytest.mark.parametrize(
    ("kind", "guide", "message"),
    [
        (b"yaml", b"a", "guided_decoding_guide_type: 'yaml' is not known"),
        (b"", b"a", "guided_decoding_guide_type: missing beside guided_decoding_guide"),
        (b"regex", b"", "guided_decoding_guide: missing; guided_decoding_guide_type regex needs"),
        (b"json", b"{}", "guided_decoding_guide: guided_decoding_guide_type json takes none"),
    ],
)
def test_a_guide_that_cannot_be_is_rejected_by_name(
    kind: bytes, guide: bytes, message: str
) -> None:
    sent: dict[str, Any] = {
        "guided_decoding_guide_type": texts(kind, kind),
        "guided_decoding_guide": texts(guide, guide),
    }
    with pytest.raises(RequestError, match=f"^{message}"):
        read(**sent)


def test_nothing_sent_is_nothing_asked() -> None:
    empty = texts(b"", b"")
    sent: dict[str, Any] = {
        "guided_decoding_guide_type": empty,
        "guided_decoding_guide": empty,
        "lora_name": empty,
        "embedding_bias": np.zeros((2, 5), np.float32),
    }
    assert read(**sent) == read()


def test_a_bias_is_the_ids_that_have_a_weight() -> None:
    bias = np.array([[0, 1.5, 0, -2], [0, 0, 0, 0]], np.float32)
    made = [read(row, embedding_bias=bias) for row in (0, 1)]
    assert [(each.bias_ids, each.bias_weights) for each in made] == [
        ((1, 3), (1.5, -2.0)),
        ((), ()),
    ]


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_no_number_is_rejected(weight: float) -> None:
    with pytest.raises(RequestError, match=r"^embedding_bias_words: .* finite"):
        read(embedding_bias=np.array([[0, weight], [0, 0]], np.float32))


def test_an_adapter_is_a_name() -> None:
    assert [read(row, lora_name=texts(b"polite", b"")).lora_name for row in (0, 1)] == [
        "polite",
        "",
    ]
    with pytest.raises(RequestError, match=r"^lora_name: not valid UTF-8"):
        read(lora_name=texts(b"\xff", b""))

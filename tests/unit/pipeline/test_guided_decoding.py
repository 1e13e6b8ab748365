# SPDX-License-Identifier: Apache-2.0
"""The guides of one request together, by either wiring's reader."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from trellis.contract.client_inputs import GUIDE, GUIDE_TYPE
from trellis.errors import RequestError
from trellis.pipeline.guided_decoding import GuidedDecoding, read_guide

Arrays = dict[str, np.ndarray]


def arrays(guides: list[str]) -> Arrays:
    return {
        GUIDE_TYPE: np.array([[b"json_schema"]] * len(guides), object),
        GUIDE: np.array([[guide.encode()] for guide in guides], object),
    }


def by_rows(sent: Arrays) -> None:
    for row in range(len(sent[GUIDE])):
        read_guide(sent, row)


def taken(sent: Arrays) -> None:
    GuidedDecoding("xgrammar").take(sent, len(sent[GUIDE]))


@pytest.mark.parametrize("read", [by_rows, taken])
def test_rows_together_have_no_more_than_one_may(read: Callable[[Arrays], None]) -> None:
    """A batch is read at once: one of many guides would hold up all others for minutes."""
    schemas = [json.dumps({"const": f"{at}" * 20_000}) for at in range(4)]
    with pytest.raises(RequestError, match="80052 characters, and guide_bytes is 65536"):
        read(arrays(schemas))
    small = [json.dumps({"const": at}) for at in range(4)]
    read(arrays(small))
    read(arrays([json.dumps({"const": 1, "description": "a" * 30_000})] * 4))  # one guide

# SPDX-License-Identifier: Apache-2.0
"""A body of `/generate` or `/generate_stream` that was checked."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from trellis.contract.client_inputs import BEAMS, MAX_TOKENS, SEQUENCES, SKIP, STREAM
from trellis.gateway.ids import RequestId

BYTES_PER_TOKEN = 4  # of a body, about: its prompt is not encoded yet


class Prepared(NamedTuple):
    """A body as it goes to Triton."""

    body: bytes
    request_id: RequestId
    one_text: bool  # whether it is answered with one sequence of one prompt, and little beside
    values: dict[str, Any]  # the inputs that were sent
    stops: bool  # whether it ends another request
    size: int  # bytes of the body that the client sent
    tokens: int  # that prompt and answer may have together, see `tokens_asked`

    @property
    def streams(self) -> bool:
        """Whether its answer comes in chunks."""
        return self.values.get(STREAM) in (True, [True])

    @property
    def skip_special_tokens(self) -> bool | None:
        """Whether the one text leaves special tokens out; None if the request does not say."""
        value = self.values.get(SKIP)
        said: bool | None = value[0] if isinstance(value, list) else value
        return said


def tokens_asked(values: Mapping[str, Any], size: int) -> int:
    """The tokens that a request of `size` bytes may take: about those of its prompt, and all of
    its answers.

    >>> tokens_asked({"max_tokens": [8, 8], "num_return_sequences": 3}, 40)
    58

    What no engine takes counts for nothing: a negative number must not lessen another.

    >>> tokens_asked({"max_tokens": [-8, 8], "beam_width": -3, "num_return_sequences": -1}, 40)
    18
    """
    each = values.get(MAX_TOKENS, 0)
    answers = sum(max(count, 0) for count in (each if isinstance(each, list) else [each]))
    copies = max(_most(values, SEQUENCES), _most(values, BEAMS), 1)
    return int(answers * copies) + size // BYTES_PER_TOKEN


def _most(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name, 1)
    return max(value, default=1) if isinstance(value, list) else int(value)

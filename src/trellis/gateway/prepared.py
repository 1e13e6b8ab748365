# SPDX-License-Identifier: Apache-2.0
"""A body of `/generate` or `/generate_stream` that was checked."""

from typing import Any, NamedTuple

from trellis.contract.client_inputs import SKIP, STREAM
from trellis.gateway.ids import RequestId


class Prepared(NamedTuple):
    """A body as it goes to Triton."""

    body: bytes
    request_id: RequestId
    one_text: bool  # whether it is answered with one sequence of one prompt, and little beside
    values: dict[str, Any]  # the inputs that were sent
    stops: bool  # whether it ends another request
    size: int  # bytes of the body that the client sent

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

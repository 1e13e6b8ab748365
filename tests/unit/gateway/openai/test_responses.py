# SPDX-License-Identifier: Apache-2.0
"""What a response says at its end."""

import json

from trellis.gateway.openai.choices import Usage
from trellis.gateway.openai.response_fields import ResponsesRequest
from trellis.gateway.openai.response_writer import ResponseWriter


def test_the_usage_has_every_count_that_the_clients_types_want() -> None:
    asked = ResponsesRequest(model="ensemble", input="text")
    writer = ResponseWriter("1", asked)
    *_, last = writer.end(Usage(prompt=5, completion=3, cached=2)).strip().split(b"\n\n")
    event = json.loads(last.split(b"data: ", 1)[1])
    assert event["type"] == "response.completed"
    assert event["response"]["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 8,
    }

# SPDX-License-Identifier: Apache-2.0
"""What a response says at its end."""

import json
from typing import Any

import pytest
from openai.types.responses import ResponseErrorEvent, ResponseFailedEvent

from support.byte_tokenizer import ByteTokenizer
from trellis.gateway.openai.choices import Choice, Usage
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.openai.response_fields import ResponsesRequest
from trellis.gateway.openai.response_writer import ResponseWriter
from trellis.pipeline.decode import Detokenizer


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


def events(data: bytes) -> list[dict[str, Any]]:
    """Those of a stream; the name of each is its type."""
    made = []
    for lines in data.strip().split(b"\n\n"):
        name, _, body = lines.decode().partition("\n")
        made.append(json.loads(body.removeprefix("data: ")))
        assert name == f"event: {made[-1]['type']}"
    return made


@pytest.mark.parametrize("text", ["", "Hello"])
@pytest.mark.parametrize(
    ("status", "code", "told"), [(500, None, "server_error"), (503, "queue_full", "queue_full")]
)
def test_an_error_in_a_stream_is_told_by_the_clients_types(
    text: str, status: int, code: str | None, told: str
) -> None:
    writer = ResponseWriter("1", ResponsesRequest(model="ensemble", input="x"))
    tokenizer = ByteTokenizer()
    choice = Choice(0, Detokenizer.of(tokenizer).sequence(), tokenizer, [1])
    data = writer.begin() + (writer.plain(choice, text) if text else b"")
    data += writer.error(OpenAIError(status, "no more", param="input", code=code))
    made = events(data)
    assert [each["sequence_number"] for each in made] == list(range(len(made)))
    error = ResponseErrorEvent.model_validate(made[-2], strict=True)
    assert (error.type, error.message, error.param, error.code) == (
        "error",
        "no more",
        "input",
        told,
    )
    failed = ResponseFailedEvent.model_validate(made[-1]).response
    assert (failed.status, failed.usage) == ("failed", None)
    assert failed.error is not None
    assert (failed.error.code, failed.error.message) == ("server_error", "no more")
    items = failed.model_dump()["output"]
    assert [item["status"] for item in items] == (["incomplete"] if text else [])
    assert failed.output_text == text

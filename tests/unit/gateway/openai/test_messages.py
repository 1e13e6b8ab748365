# SPDX-License-Identifier: Apache-2.0
"""What of a message a chat template gets."""

import json
from typing import Any

import pytest

from trellis.gateway.limits import Limits
from trellis.gateway.openai.chat_fields import ChatRequest
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.openai.fields import read_fields
from trellis.gateway.openai.messages import plain_messages
from trellis.gateway.openai.response_fields import ResponsesRequest
from trellis.gateway.openai.response_input import read_items

REFUSED = {"type": "refusal", "refusal": "No."}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def told(**message: Any) -> dict[str, Any]:
    """One of a chat. Raises OpenAIError."""
    body = {"model": "m", "messages": [message]}
    asked = read_fields(ChatRequest, json.dumps(body).encode(), Limits())
    (made,) = plain_messages(asked.messages, False)
    return made


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": None, "refusal": "No."}, "No."),
        ({"refusal": "No."}, "No."),
        ({"content": "", "refusal": "No."}, "No."),
        ({"content": "Well.", "refusal": "No."}, "Well.\nNo."),
        ({"content": [REFUSED]}, "No."),
        ({"content": [{"type": "text", "text": "Well."}, REFUSED]}, "Well.\nNo."),
        ({"content": None, "refusal": "No.", "tool_calls": [CALL]}, "No."),
        ({"content": "Yes.", "refusal": None}, "Yes."),
        ({"content": "", "refusal": ""}, ""),
    ],
)
def test_a_refusal_is_text_of_the_assistant_s_message(
    message: dict[str, Any], content: str
) -> None:
    assert told(role="assistant", **message)["content"] == content


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "assistant", "content": None, "refusal": ""}, "messages[0].content"),
        ({"role": "user", "content": "Hi", "refusal": "No."}, "messages[0].refusal"),
        ({"role": "user", "content": [REFUSED]}, "messages[0].content[0].type"),
        (
            {"role": "assistant", "content": [{"type": "refusal", "text": "No."}]},
            "messages[0].content[0].refusal",
        ),
    ],
)
def test_a_refusal_of_nobody_s_is_named(message: dict[str, Any], param: str) -> None:
    with pytest.raises(OpenAIError) as caught:
        told(**message)
    assert caught.value.param == param


def test_a_refusal_in_a_response_s_input_is_text_too() -> None:
    items = [{"type": "message", "role": "assistant", "content": [REFUSED]}]
    body = {"model": "m", "input": items}
    asked = read_fields(ResponsesRequest, json.dumps(body).encode(), Limits())
    (message,) = plain_messages(read_items(None, asked.input)[0], False)
    assert message == {"role": "assistant", "content": "No."}

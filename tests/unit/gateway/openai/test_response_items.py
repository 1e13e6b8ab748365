"""The items of a response: a whole one is what a stream's events add up to."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.hypothesis_profiles import examples
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.openai.messages import plain_messages
from trellis.gateway.openai.response_fields import ResponsesRequest
from trellis.gateway.openai.response_input import read_items
from trellis.gateway.openai.response_items import Items
from trellis.parsers import CallArguments, CallBegin, CallEnd, Event, Reasoning, Text

PART = st.one_of(
    st.text(max_size=4).map(lambda text: [Text(text)]),
    st.text(min_size=1, max_size=4).map(lambda text: [Reasoning(text)]),
    st.lists(st.text(max_size=3), max_size=3).map(
        lambda pieces: [CallBegin(0, "f"), *(CallArguments(0, each) for each in pieces), CallEnd(0)]
    ),
)


def numbered(parts: list[list[Event]]) -> list[Event]:
    """With the numbers of its calls."""
    made: list[Event] = []
    number = -1
    for event in (event for part in parts for event in part):
        if isinstance(event, CallBegin):
            number += 1
        made.append(
            event if isinstance(event, (Text, Reasoning)) else event._replace(number=number)
        )
    return made


class Told:
    """What a client makes of the events."""

    def __init__(self) -> None:
        self.items: dict[int, dict[str, Any]] = {}
        self.grown: dict[int, str] = {}
        self.done: list[dict[str, Any]] = []

    def tell(self, kind: str, **members: Any) -> bytes:
        members = json.loads(json.dumps(members))
        at = members["output_index"]
        if kind == "response.output_item.added":
            assert at == len(self.items) == len(self.done), "the one before is not done"
            self.items[at] = members["item"]
            self.grown[at] = ""
        elif kind.endswith(".delta"):
            assert members["item_id"] == self.items[at]["id"]
            self.grown[at] += members["delta"]
        elif kind == "response.output_item.done":
            self.done.append(members["item"])
        elif kind.endswith(".done") and "part" not in kind:
            assert members.get("text", members.get("arguments")) == self.grown[at]
        return kind.encode()


@settings(max_examples=examples(300))
@given(st.lists(PART, max_size=8), st.lists(st.integers(0, 20), max_size=4))
def test_a_whole_response_is_what_a_stream_adds_up_to(
    parts: list[list[Event]], cuts: list[int]
) -> None:
    events = numbered(parts)
    ends = sorted({min(cut, len(events)) for cut in cuts} | {len(events)})
    told, whole = Told(), Told()
    streamed, at_once = Items("1", told.tell), Items("1", whole.tell)
    for start, end in zip([0, *ends], ends, strict=False):
        streamed.take(events[start:end], [])
    streamed.end("completed")
    at_once.take(events, [])
    at_once.end("completed")
    assert without_ids(streamed.made) == without_ids(at_once.made)
    assert told.done == json.loads(json.dumps(streamed.made))
    assert all(item["status"] == "completed" for item in streamed.made)
    assert len({item["id"] for item in streamed.made}) == len(streamed.made)
    assert streamed.made, "an answer has at least one item"
    texts = "".join(event.text for event in events if isinstance(event, Text))
    assert texts == "".join(
        item["content"][0]["text"] for item in streamed.made if item["type"] == "message"
    )


def without_ids(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: item[key] for key in item if key not in ("call_id",)} for item in items]


def test_a_message_that_is_cut_off_is_incomplete() -> None:
    items = Items("1", Told().tell)
    items.take([CallBegin(0, "f"), CallEnd(0), Text("and")], [])
    items.end("incomplete")
    assert [item["status"] for item in items.made] == ["completed", "incomplete"]


def test_items_of_an_earlier_answer_are_one_message() -> None:
    body = {
        "model": "m",
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": "Weather?"},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": "Hm."}],
            },
            {
                "type": "function_call",
                "call_id": "1",
                "name": "f",
                "arguments": "{}",
                "id": "fc_1",
                "status": "completed",
            },
            {"type": "function_call", "call_id": "2", "name": "g", "arguments": '{"a": 1}'},
            {"type": "function_call_output", "call_id": "1", "output": "sunny"},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Sunny."}],
            },
        ],
    }
    asked = ResponsesRequest.model_validate(body)
    messages, places = read_items(asked.instructions, asked.input)
    assert [message.role for message in messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert places == ["instructions", "input[0]", "input[2]", "input[4]", "input[5]"]
    called = messages[2]
    assert called.reasoning_content == "Hm."
    assert [each.function.name for each in called.tool_calls or ()] == ["f", "g"]
    assert messages[3].tool_call_id == "1"


CALL = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "1", "output": "sunny"}


def thought(text: str) -> dict[str, Any]:
    """An item."""
    return {"type": "reasoning", "content": [{"type": "reasoning_text", "text": text}]}


def said(role: str, text: str) -> dict[str, Any]:
    """An item."""
    return {"role": role, "content": text}


@pytest.mark.parametrize(
    ("items", "told"),
    [
        (
            [thought("T"), said("user", "Q"), said("assistant", "A"), said("user", "Q2")],
            ["0 assistant  T", "1 user Q", "2 assistant A", "3 user Q2"],
        ),
        ([said("user", "Q"), thought("T")], ["0 user Q", "1 assistant  T"]),
        (
            [said("user", "Q"), thought("T"), thought("U"), said("user", "Q2")],
            ["0 user Q", "2 assistant  TU", "3 user Q2"],
        ),
        (
            [said("user", "Q"), thought("T"), said("assistant", "A"), thought("U"), CALL, RESULT],
            ["0 user Q", "2 assistant A TU", "5 tool sunny"],
        ),
        (
            [said("user", "Q"), CALL, thought("T"), RESULT, thought("U"), said("assistant", "A")],
            ["0 user Q", "1 assistant None T", "3 tool sunny", "5 assistant A U"],
        ),
        ([said("user", "Q"), thought(""), said("user", "Q2")], ["0 user Q", "2 user Q2"]),
    ],
)
def test_thoughts_stay_with_the_answer_that_they_are_of(
    items: list[dict[str, Any]], told: list[str]
) -> None:
    asked = ResponsesRequest.model_validate({"model": "m", "input": items})
    messages, places = read_items(None, asked.input)
    assert [
        " ".join(
            [place[6:-1], each.role, str(each.content)]
            + ([each.reasoning_content] if each.reasoning_content else [])
        )
        for place, each in zip(places, messages, strict=True)
    ] == told
    plain = plain_messages(messages, False, places)
    assert [each["role"] for each in plain] == [each.role for each in messages]


@pytest.mark.parametrize(
    ("item", "thoughts"),
    [
        ({"summary": [{"type": "summary_text", "text": "S"}], **thought("T")}, "T"),
        (
            {"type": "reasoning", "summary": [{"text": "S"}, {"text": "S2"}], "content": None},
            "S\n\nS2",
        ),
        ({**thought("T"), "encrypted_content": None}, "T"),
        ({**thought("T"), "encrypted_content": ""}, "T"),
    ],
)
def test_a_summary_stands_for_thoughts_that_were_not_told(
    item: dict[str, Any], thoughts: str
) -> None:
    body = {"model": "m", "input": [item, said("assistant", "A")]}
    ((message,), _) = read_items(None, ResponsesRequest.model_validate(body).input)
    assert message.reasoning_content == thoughts


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([{**thought("T"), "encrypted_content": "x"}], "input[1].encrypted_content"),
        ([{"type": "reasoning", "content": [{}]}], "input[1].content[0].text"),
        ([{"type": "reasoning", "summary": [{"text": 1}]}], "input[1].summary[0].text"),
    ],
)
def test_thoughts_that_cannot_be_read_are_named(items: list[dict[str, Any]], param: str) -> None:
    body = {"model": "m", "input": [said("user", "Q"), *items]}
    with pytest.raises(OpenAIError) as caught:
        read_items(None, ResponsesRequest.model_validate(body).input)
    assert caught.value.param == param


def test_thoughts_alone_are_no_conversation() -> None:
    asked = ResponsesRequest.model_validate({"model": "m", "input": [thought("T")]})
    for instructions in (None, "Be brief."):
        with pytest.raises(OpenAIError) as caught:
            read_items(instructions, asked.input)
        assert caught.value.param == "input"

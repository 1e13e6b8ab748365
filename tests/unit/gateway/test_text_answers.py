"""Answers of `ensemble_ids`, written anew by the gateway: the text of the same tokens."""

import json
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trellis.gateway.models import Models, read_model
from trellis.gateway.plugins import Plugins
from trellis.gateway.replies import quoted
from trellis.gateway.text_answers import Source, TextAnswer
from trellis.gateway.upstream import Upstream
from trellis.pipeline.decode import Detokenizer
from trellis.pipeline.hooks import AnswerHook, Hooks, WholeAnswerHook
from trellis.pipeline.streams import StreamTable
from trellis.tokenizers import Tokenizer, load

TEXT = '안녕하세요 세계 😀 naïve \x00\x1f"\\ — '
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n%s\r\n\r\n"
STREAM = HEAD % (b"text/event-stream; charset=utf-8", b"Transfer-Encoding: chunked")
CHUNKED = HEAD % (b"application/json", b"Transfer-Encoding: chunked")


@cache
def tokenizer_of(folder: Path) -> Tokenizer:
    return load("llama", folder)


def texts_of(tokenizer: Tokenizer) -> Detokenizer:
    return Detokenizer(tokenizer.decode, tokenizer.stream_decoder, frozenset())


HIDDEN = frozenset((b"output_ids", b"text_cut", b"stream_end", b"stream_key"))
IDS = Source("ensemble", "ensemble_ids", {}, HIDDEN | {b"sequence_length"}, False)
ENGINE = Source("ensemble", "tensorrt_llm", {b"logp": b"cum_log_probs"}, HIDDEN, True)
SEQUENCE = {"sequence_end": False, "sequence_id": 0, "sequence_start": False}


def answer_of(tokenizer: Tokenizer, source: Source = IDS) -> TextAnswer:
    return TextAnswer(source, texts_of(tokenizer))


def from_triton(ids: list[int], model: str = "ensemble_ids", **more: Any) -> bytes:
    """A JSON object as Triton writes it: one value alone is no list, keys in order."""
    value = ids[0] if len(ids) == 1 else ids
    return written({"model_name": model, "model_version": "1", "output_ids": value, **more})


def expected(text: str, **more: Any) -> bytes:
    return written(
        {"model_name": "ensemble", "model_version": "1", **SEQUENCE, "text_output": text, **more}
    )


def written(made: dict[str, Any]) -> bytes:
    """By Triton."""
    text = json.dumps(dict(sorted(made.items())), separators=(",", ":"), ensure_ascii=False)
    return re.sub(r"\\\\|\\u00[01][0-9a-f]", capital, text).encode()


def capital(found: re.Match[str]) -> str:
    """An escape as Triton writes it; two backslashes are none."""
    return found[0] if found[0] == "\\\\" else "\\u" + found[0][2:].upper()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def fed(answer: TextAnswer, data: bytes, cuts: list[int]) -> bytes:
    """What comes out of `data` in pieces, cut anywhere."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return b"".join(answer.feed(data[a:b]) for a, b in pairwise(places))


def unchunked(data: bytes) -> bytes:
    """The body of a chunked answer."""
    _, _, data = data.partition(b"\r\n\r\n")
    body = b""
    while data != b"0\r\n\r\n":
        size, _, data = data.partition(b"\r\n")
        body, data = body + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return body


GROUPS = st.lists(st.lists(st.integers(0, 31_999), max_size=4), min_size=1, max_size=12)
CUTS = st.lists(st.integers(0, 100_000), max_size=30)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(GROUPS, CUTS, st.booleans())
def test_a_stream_has_the_text_of_its_tokens_however_its_bytes_are_cut(
    llama_folder: Path, groups: list[list[int]], cuts: list[int], log_probs: bool
) -> None:
    """The same events as `postprocessing` would have given, one for one."""
    tokenizer = tokenizer_of(llama_folder)
    events, right = [], []
    decoder = tokenizer.stream_decoder()
    for at, ids in enumerate(groups):
        more: dict[str, Any] = {"output_log_probs": -0.5 * at} if log_probs else {}
        padded = [*ids, *[0] * (at % 2)]
        events.append(b"data: " + from_triton(padded, sequence_length=len(ids), **more) + b"\n\n")
        right.append(b"data: " + expected(decoder.push(ids), **more) + b"\n\n")
    answer = answer_of(tokenizer)
    out = fed(answer, STREAM + b"".join(map(chunk, events)) + b"0\r\n\r\n", cuts)
    assert answer.ended
    assert out.startswith(STREAM)
    assert unchunked(out) == b"".join(right)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, 31_999), max_size=20), CUTS, st.booleans())
def test_a_whole_answer_is_the_text_decoded_at_once(
    llama_folder: Path, ids: list[int], cuts: list[int], sized: bool
) -> None:
    tokenizer = tokenizer_of(llama_folder)
    body, right = from_triton(ids, sequence_length=len(ids)), expected(tokenizer.decode(ids))
    if sized:
        sent = HEAD % (b"application/json", b"Content-Length: %d" % len(body)) + body
        wanted = HEAD % (b"application/json", b"Content-Length: %d" % len(right)) + right
    else:
        sent, wanted = CHUNKED + chunk(body) + b"0\r\n\r\n", CHUNKED + chunk(right) + b"0\r\n\r\n"
    answer = answer_of(tokenizer)
    assert fed(answer, sent, cuts) == wanted
    assert answer.ended


def test_characters_that_fall_on_token_borders_come_whole(llama_folder: Path) -> None:
    tokenizer = tokenizer_of(llama_folder)
    ids = tokenizer.encode(TEXT)[1:]
    answer = answer_of(tokenizer)
    answer.feed(STREAM)
    texts = []
    for one in ids:
        event = chunk(b"data: " + from_triton([one]) + b"\n\n")
        out = answer.feed(event).split(b"\r\n", 1)[1]
        texts.append(json.loads(out.strip().removeprefix(b"data: "))["text_output"])
    assert "".join(texts) == TEXT == tokenizer.decode(ids)
    assert not any("\ufffd" in text for text in texts)
    assert "" in texts, "no character fell on a token border: the test shows nothing"


def test_what_a_stop_word_cuts_off_is_cut_off(llama_folder: Path) -> None:
    tokenizer = tokenizer_of(llama_folder)
    ids = tokenizer.encode("a stopword")[1:]
    answer = answer_of(tokenizer)
    out = answer.feed(STREAM + chunk(b"data: " + from_triton(ids, text_cut=4) + b"\n\n"))
    assert expected("a stop") in out


@pytest.mark.parametrize("streams", [True, False])
def test_special_tokens_are_shown_to_a_request_that_asks_for_them(
    llama_folder: Path, streams: bool
) -> None:
    tokenizer = tokenizer_of(llama_folder)
    ids = [*tokenizer.encode("one two")[1:], 1, 2]
    for skip, wanted in ((False, "one two<s></s>"), (True, "one two"), (None, "one two")):
        answer = TextAnswer(ENGINE, texts_of(tokenizer), skip)
        body = from_triton(ids, "tensorrt_llm")
        event = b"data: " + body + b"\n\n"
        out = answer.feed(STREAM + chunk(event) if streams else CHUNKED + chunk(body))
        out += answer.feed(b"0\r\n\r\n")
        assert expected(wanted) in out


def test_an_output_that_the_ensemble_shows_stays(llama_folder: Path) -> None:
    tokenizer = tokenizer_of(llama_folder)
    answer = answer_of(tokenizer, Source("ensemble", "ensemble_ids", {}, HIDDEN, False))
    out = answer.feed(STREAM + chunk(b"data: " + from_triton([22557], sequence_length=1) + b"\n\n"))
    assert expected("Hello", sequence_length=1).replace(b'"sequence_length":1,', b"") not in out
    assert b'"sequence_length":1' in out


ERROR = b'{"error":"in ensemble \'%s\', top_p: \\"output_ids\\":7 is not allowed"}'


REASONS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, 31_999), min_size=1, max_size=9), REASONS, st.lists(REASONS))
def test_an_engine_answers_as_its_ensemble_would(
    llama_folder: Path, ids: list[int], reason: str, reasons: list[str]
) -> None:
    """Its own outputs gone, the others under their names, in Triton's order; digits as they are."""
    tokenizer = tokenizer_of(llama_folder)
    engine = {"stream_key": 2**63, "stream_end": True, "text_cut": 0, "logp": -0.12345678901234567}
    both = {"finish_reason": reason, "several": reasons, "num_input_tokens": 5}
    body = from_triton(ids, "tensorrt_llm", sequence_length=len(ids), **engine, **both)
    answer = answer_of(tokenizer, ENGINE)
    out = answer.feed(CHUNKED + chunk(body) + b"0\r\n\r\n")
    shown = {"cum_log_probs": engine["logp"], "sequence_length": len(ids), **both}
    text = tokenizer.decode(ids)
    assert out == CHUNKED + chunk(expected(text, **shown)) + b"0\r\n\r\n"


class Ending:
    """A decoder of one's own, which keeps something back until the end."""

    def push(self, ids: list[int]) -> str:
        return "x" * len(ids)

    def end(self) -> str:
        return "!"


def test_a_whole_answer_has_what_a_decoder_has_left_too() -> None:
    answer = TextAnswer(ENGINE, Detokenizer(Ending().push, Ending))
    body = from_triton([5, 6], "tensorrt_llm", stream_end=True)
    assert b'"text_output":"xx!"' in answer.feed(CHUNKED + chunk(body) + b"0\r\n\r\n")


CONTROLS = "".join(map(chr, range(32))) + '\x7f\\u001b"\\\x1b'


def test_characters_of_control_are_written_as_triton_does() -> None:
    """With capital digits, and only where the backslash is the escape's."""
    made = quoted(CONTROLS)
    assert json.loads(made) == CONTROLS
    assert b"\\u001B" in made
    assert b"\\u000B" in made
    assert made.endswith(b'\\\\u001b\\"\\\\\\u001B"')


@pytest.mark.parametrize("source", [IDS, ENGINE])
def test_what_a_decoder_has_left_comes_with_the_last_chunk(source: Source) -> None:
    answer = TextAnswer(source, Detokenizer(Ending().push, Ending))
    answer.feed(STREAM)
    texts = []
    for last in (False, True):
        event = from_triton([5], source.model, stream_end=last, stream_key=7)
        out = answer.feed(chunk(b"data: " + event + b"\n\n")).split(b"\r\n", 1)[1]
        texts.append(json.loads(out.strip().removeprefix(b"data: "))["text_output"])
    assert texts == ["x", "x!"]


@pytest.mark.parametrize("source", [IDS, ENGINE])
@pytest.mark.parametrize("streams", [True, False])
def test_an_error_names_the_ensemble_that_was_asked(
    llama_folder: Path, streams: bool, source: Source
) -> None:
    answer = answer_of(tokenizer_of(llama_folder), source)
    sent, wanted = ERROR % b"ensemble_ids", ERROR % b"ensemble"
    if source.is_engine:
        sent = sent.replace(b"in ensemble 'ensemble_ids', ", b"")
    if streams:
        out = answer.feed(STREAM + chunk(b"data: " + sent + b"\n\n") + b"0\r\n\r\n")
        assert unchunked(out) == b"data: " + wanted + b"\n\n"
    else:
        head = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n"
        assert answer.feed(head % len(sent) + sent) == head % len(wanted) + wanted
    assert answer.ended


def config(name: str, *models: str) -> dict[str, Any]:
    return {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": 8,
        "input": [{"name": "text_input", "data_type": "TYPE_STRING", "dims": ["1"]}],
        "output": [{"name": "text_output", "data_type": "TYPE_STRING", "dims": ["-1"]}],
        "ensemble_scheduling": {"step": [{"model_name": model} for model in models]},
    }


def test_an_ensemble_without_one_that_gives_ids_is_asked_as_ever() -> None:
    """A repository of an earlier version, or of somebody else."""

    def config_of(name: str) -> dict[str, Any]:
        if name.endswith("_ids"):
            raise OSError("404")
        return {"name": name}

    def none_needed(*_: dict[str, Any]) -> Plugins:
        raise AssertionError("no tokenizer is needed")

    assert read_model(config("ensemble", "a", "b"), config_of, none_needed).route is None


def python_model(name: str, tokenizer_type: str) -> dict[str, Any]:
    return {"name": name, "parameters": {"tokenizer_type": {"string_value": tokenizer_type}}}


def test_a_tokenizer_that_cannot_be_loaded_here_is_said_and_left_to_its_model(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = [python_model(name, "llama") for name in ("preprocessing", "postprocessing")]
    models = Models(1, str(tmp_path))
    assert models._load(*asked).texts is None
    assert models._load(*asked).texts is None
    said = capfd.readouterr().err
    assert said.count("HTTP gateway: requests go through") == 1
    assert "`preprocessing` and `postprocessing`" in said
    models.heed(b"POST", b"/v2/repository/index")
    models._load(*asked)
    assert not capfd.readouterr().err
    models.heed(b"POST", b"/v2/repository/models/ensemble/load")
    models._load(*asked)  # the files may be others by now
    assert capfd.readouterr().err.count("HTTP gateway: requests go through") == 1


class Hook:
    """An answer's hook that keeps the last letter back, and shows where it ended."""

    def __init__(self) -> None:
        self.kept = ""

    def push(self, text: str) -> str:
        text = self.kept + text
        self.kept = text[-1:]
        return text[:-1].upper()

    def end(self) -> str:
        return self.kept + "!"


def hooked(tokenizer: Tokenizer) -> Detokenizer:
    return Detokenizer.of(tokenizer, hooks=Hooks(new_answer=lambda: AnswerHook(Hook)))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(GROUPS, CUTS)
def test_a_hooked_stream_says_what_postprocessing_would(
    llama_folder: Path, groups: list[list[int]], cuts: list[int]
) -> None:
    tokenizer = tokenizer_of(llama_folder)
    table = StreamTable(hooked(tokenizer))  # as `postprocessing` has it
    events, right = [], []
    for at, ids in enumerate(groups):
        last = at == len(groups) - 1
        events.append(b"data: " + from_triton(ids, ENGINE.model, stream_end=last) + b"\n\n")
        right.append(b"data: " + expected(table.decode(7, ids, last)) + b"\n\n")
    answer = TextAnswer(ENGINE, hooked(tokenizer))
    out = fed(answer, STREAM + b"".join(map(chunk, events)) + b"0\r\n\r\n", cuts)
    assert unchunked(out) == b"".join(right)


@pytest.mark.parametrize("event", [True, False])
@pytest.mark.parametrize("says_last", [True, False])
def test_a_hook_has_the_whole_of_an_answer_that_is_no_stream(
    llama_folder: Path, event: bool, says_last: bool
) -> None:
    """Also where it is an event, and an engine does not say that nothing follows."""
    tokenizer = tokenizer_of(llama_folder)
    ids = tokenizer.encode("one two")[1:]
    more = {"stream_end": True} if says_last else {}
    body = from_triton(ids, ENGINE.model, **more)
    answer = TextAnswer(ENGINE, hooked(tokenizer), in_chunks=False)
    out = answer.feed(
        STREAM + chunk(b"data: " + body + b"\n\n") if event else CHUNKED + chunk(body)
    )
    out += answer.feed(b"0\r\n\r\n")
    assert expected("ONE TWo!") in out


def fails(*texts: str) -> Any:
    raise ValueError(*texts, "!")


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        (lambda: WholeAnswerHook(fails), "answer raised ValueError: ('x', '!')"),
        (lambda: AnswerHook(fails), "Answer raised ValueError: !"),
    ],
)
def test_a_hook_that_fails_is_named_and_nothing_else_is_said(hook: Any, message: str) -> None:
    """As an answer of Triton's with its status, also where the object cannot be made."""
    answer = TextAnswer(ENGINE, Detokenizer(Ending().push, Ending, None, hook))
    out = answer.feed(CHUNKED + chunk(from_triton([5], ENGINE.model)) + b"0\r\n\r\n")
    assert out.startswith(b"HTTP/1.1 400 ")
    said = {"error": f"in ensemble 'ensemble', hooks.py: {message}"}
    assert json.loads(out.partition(b"\r\n\r\n")[2]) == said


class Raising:
    """A stream decoder that does not like one id."""

    def push(self, ids: list[int]) -> str:
        if 13 in ids:
            raise ValueError("told to raise")
        return "x" * len(ids)

    def end(self) -> str:
        return ""


class Client:
    """Who an upstream answers to."""

    def __init__(self) -> None:
        self.transport = self
        self.written = b""
        self.began = False

    def write(self, data: bytes) -> None:
        self.written += data

    def answer_began(self) -> None:
        self.began = True

    def answer_ended(self) -> None: ...

    def answer_failed(self) -> None: ...

    def upstream_lost(self) -> None: ...

    def pause_uploading(self, full: bool) -> None: ...


def test_an_answer_begins_with_the_first_byte_for_the_client(llama_folder: Path) -> None:
    """Until then a client can still be told what went wrong."""
    client = Client()
    upstream = Upstream(client)  # type: ignore[arg-type]
    upstream.text_answer = answer_of(tokenizer_of(llama_folder))
    upstream.data_received(CHUNKED)
    assert not client.began
    upstream.data_received(chunk(from_triton([22557])) + b"0\r\n\r\n")
    assert client.began
    assert client.written == CHUNKED + chunk(expected("Hello")) + b"0\r\n\r\n"


FAULT = "in ensemble 'ensemble', the tokens could not be decoded: told to raise"


def test_a_stream_that_cannot_be_decoded_ends_with_the_error() -> None:
    answer = TextAnswer(IDS, Detokenizer(Raising().push, Raising))
    events = [b"data: " + from_triton([one]) + b"\n\n" for one in (1, 13, 2)]
    out = answer.feed(STREAM + chunk(events[0]) + chunk(events[1] + events[2]))
    assert answer.failed
    assert not answer.ended  # Triton's answer goes on, and is read to its end
    assert out.endswith(b"0\r\n\r\n")
    first, last = unchunked(out).split(b"\n\n")[:2]
    assert first == b"data: " + expected("x")
    assert json.loads(last.removeprefix(b"data: ")) == {"error": FAULT}
    assert answer.feed(chunk(events[0]) + b"0\r\n\r\n") == b""
    assert answer.ended


def test_a_whole_answer_that_cannot_be_decoded_is_the_error() -> None:
    answer = TextAnswer(IDS, Detokenizer(Raising().push, Raising))
    out = answer.feed(CHUNKED + chunk(from_triton([1, 13])) + b"0\r\n\r\n")
    assert answer.ended
    assert out.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert json.loads(out.partition(b"\r\n\r\n")[2]) == {"error": FAULT}

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

from support.hypothesis_profiles import examples
from trellis.gateway.ids import RequestId
from trellis.gateway.models import Models, read_model
from trellis.gateway.plugins import Plugins
from trellis.gateway.refusals import EVENTS, JSON, one_line, quoted
from trellis.gateway.text_answers import Source, TextAnswer
from trellis.pipeline.decode import Detokenizer
from trellis.pipeline.hooks import AnswerHook, Hooks, WholeAnswerHook
from trellis.pipeline.streams import StreamTable
from trellis.tokenizers import Tokenizer, load

TEXT = '안녕하세요 세계 😀 naïve \x00\x1f"\\ — '
NO_ID = RequestId("0123456789abcdef0123456789abcdef")


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
    return answer_by(source, texts_of(tokenizer))


def answer_by(source: Source, texts: Detokenizer, *more: Any, **named: Any) -> TextAnswer:
    return TextAnswer(source, texts, NO_ID, *more, **named)


def streamed(answer: TextAnswer, *events: bytes) -> bytes:
    """What goes out of a stream that begins with these events."""
    answer.begin(200, EVENTS)
    return b"".join(answer.feed(event) for event in events)


def whole(answer: TextAnswer, *pieces: bytes, status: int = 200) -> bytes:
    """What goes out for a whole answer."""
    answer.begin(status, JSON)
    assert not b"".join(map(answer.feed, pieces))
    return answer.end()


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


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


def fed(answer: TextAnswer, data: bytes, cuts: list[int]) -> bytes:
    """What comes out of `data` in pieces, cut anywhere, to its end."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return b"".join(answer.feed(data[a:b]) for a, b in pairwise(places)) + answer.end()


GROUPS = st.lists(st.lists(st.integers(0, 31_999), max_size=4), min_size=1, max_size=12)
CUTS = st.lists(st.integers(0, 100_000), max_size=30)


@settings(max_examples=examples(200), suppress_health_check=list(HealthCheck))
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
        events.append(event(from_triton(padded, sequence_length=len(ids), **more)))
        right.append(event(one_line(expected(decoder.push(ids), **more))))
    answer = answer_of(tokenizer)
    answer.begin(200, EVENTS)
    assert fed(answer, b"".join(events), cuts) == b"".join(right)
    assert answer.success_of == ("ensemble",)


@settings(max_examples=examples(100), suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, 31_999), max_size=20), CUTS)
def test_a_whole_answer_is_the_text_decoded_at_once(
    llama_folder: Path, ids: list[int], cuts: list[int]
) -> None:
    tokenizer = tokenizer_of(llama_folder)
    body, right = from_triton(ids, sequence_length=len(ids)), expected(tokenizer.decode(ids))
    answer = answer_of(tokenizer)
    answer.begin(200, JSON)
    assert fed(answer, body, cuts) == right
    assert (answer.status, answer.content_type) == (200, JSON)


def test_characters_that_fall_on_token_borders_come_whole(llama_folder: Path) -> None:
    tokenizer = tokenizer_of(llama_folder)
    ids = tokenizer.encode(TEXT)[1:]
    answer = answer_of(tokenizer)
    texts = []
    for one in ids:
        out = streamed(answer, event(from_triton([one])))
        texts.append(json.loads(out.strip().removeprefix(b"data: "))["text_output"])
    assert "".join(texts) == TEXT == tokenizer.decode(ids)
    assert not any("\ufffd" in text for text in texts)
    assert "" in texts, "no character fell on a token border: the test shows nothing"


def test_what_a_stop_word_cuts_off_is_cut_off(llama_folder: Path) -> None:
    tokenizer = tokenizer_of(llama_folder)
    ids = tokenizer.encode("a stopword")[1:]
    answer = answer_of(tokenizer)
    out = streamed(answer, event(from_triton(ids, text_cut=4)))
    assert expected("a stop") in out


@pytest.mark.parametrize("streams", [True, False])
def test_special_tokens_are_shown_to_a_request_that_asks_for_them(
    llama_folder: Path, streams: bool
) -> None:
    tokenizer = tokenizer_of(llama_folder)
    ids = [*tokenizer.encode("one two")[1:], 1, 2]
    for skip, wanted in ((False, "one two<s></s>"), (True, "one two"), (None, "one two")):
        answer = answer_by(ENGINE, texts_of(tokenizer), skip)
        body = from_triton(ids, "tensorrt_llm")
        out = streamed(answer, event(body)) if streams else whole(answer, body)
        assert expected(wanted) in out


def test_an_output_that_the_ensemble_shows_stays(llama_folder: Path) -> None:
    tokenizer = tokenizer_of(llama_folder)
    answer = answer_of(tokenizer, Source("ensemble", "ensemble_ids", {}, HIDDEN, False))
    out = streamed(answer, event(from_triton([22557], sequence_length=1)))
    assert expected("Hello", sequence_length=1).replace(b'"sequence_length":1,', b"") not in out
    assert b'"sequence_length":1' in out


ERROR = b'{"error":"in ensemble \'%s\', top_p: \\"output_ids\\":7 is not allowed"}'


REASONS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=examples(200), suppress_health_check=list(HealthCheck))
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
    out = whole(answer, body)
    shown = {"cum_log_probs": engine["logp"], "sequence_length": len(ids), **both}
    text = tokenizer.decode(ids)
    assert out == expected(text, **shown)


class Ending:
    """A decoder of one's own, which keeps something back until the end."""

    def push(self, ids: list[int]) -> str:
        return "x" * len(ids)

    def end(self) -> str:
        return "!"


def test_a_whole_answer_has_what_a_decoder_has_left_too() -> None:
    answer = answer_by(ENGINE, Detokenizer(Ending().push, Ending))
    body = from_triton([5, 6], "tensorrt_llm", stream_end=True)
    assert b'"text_output":"xx!"' in whole(answer, body)


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
    answer = answer_by(source, Detokenizer(Ending().push, Ending))
    texts = []
    for last in (False, True):
        out = streamed(answer, event(from_triton([5], source.model, stream_end=last, stream_key=7)))
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
        assert streamed(answer, event(sent)) == event(wanted)
    else:
        assert whole(answer, sent, status=400) == wanted
    assert not answer.failed  # by the gateway


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
    models.forget()
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


@settings(max_examples=examples(100), suppress_health_check=list(HealthCheck))
@given(GROUPS, CUTS)
def test_a_hooked_stream_says_what_postprocessing_would(
    llama_folder: Path, groups: list[list[int]], cuts: list[int]
) -> None:
    tokenizer = tokenizer_of(llama_folder)
    table = StreamTable(hooked(tokenizer))  # as `postprocessing` has it
    events, right = [], []
    for at, ids in enumerate(groups):
        last = at == len(groups) - 1
        events.append(event(from_triton(ids, ENGINE.model, stream_end=last)))
        right.append(event(one_line(expected(table.decode(7, ids, last)))))
    answer = answer_by(ENGINE, hooked(tokenizer))
    answer.begin(200, EVENTS)
    assert fed(answer, b"".join(events), cuts) == b"".join(right)


@pytest.mark.parametrize("is_event", [True, False])
@pytest.mark.parametrize("says_last", [True, False])
def test_a_hook_has_the_whole_of_an_answer_that_is_no_stream(
    llama_folder: Path, is_event: bool, says_last: bool
) -> None:
    """Also where it is an event, and an engine does not say that nothing follows."""
    tokenizer = tokenizer_of(llama_folder)
    ids = tokenizer.encode("one two")[1:]
    more = {"stream_end": True} if says_last else {}
    body = from_triton(ids, ENGINE.model, **more)
    answer = answer_by(ENGINE, hooked(tokenizer), in_chunks=False)
    out = streamed(answer, event(body)) if is_event else whole(answer, body)
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
    answer = answer_by(ENGINE, Detokenizer(Ending().push, Ending, None, hook))
    out = whole(answer, from_triton([5], ENGINE.model))
    assert (answer.status, answer.success_of) == (400, ())
    said = {"error": f"in ensemble 'ensemble', hooks.py: {message}"}
    assert json.loads(out) == said


class Raising:
    """A stream decoder that does not like one id."""

    def push(self, ids: list[int]) -> str:
        if 13 in ids:
            raise ValueError("told to raise")
        return "x" * len(ids)

    def end(self) -> str:
        return ""


FAULT = "in ensemble 'ensemble', the tokens could not be decoded: told to raise"


def test_a_stream_that_cannot_be_decoded_ends_with_the_error() -> None:
    answer = answer_by(IDS, Detokenizer(Raising().push, Raising))
    events = [event(from_triton([one])) for one in (1, 13, 2)]
    out = streamed(answer, events[0], events[1] + events[2])
    assert answer.failed
    first, last = out.split(b"\n\n")[:2]
    assert first == b"data: " + expected("x")
    assert json.loads(last.removeprefix(b"data: ")) == {"error": FAULT}
    assert answer.feed(events[0]) == answer.end() == b""
    assert answer.success_of == ()


def test_a_whole_answer_that_cannot_be_decoded_is_the_error() -> None:
    answer = answer_by(IDS, Detokenizer(Raising().push, Raising))
    out = whole(answer, from_triton([1, 13]))
    assert answer.status == 400
    assert json.loads(out) == {"error": FAULT}


LINES = "a\u0085b\u2028c\u2029d"


def test_no_text_of_a_stream_has_a_line_end_that_only_some_readers_know() -> None:
    out = one_line(event(expected(LINES)))
    assert len(out.decode().splitlines()) == 2  # the event, and the empty line after it
    assert json.loads(out[6:])["text_output"] == LINES
    assert one_line(event(expected("é — 😀"))) == event(expected("é — 😀"))


@pytest.mark.parametrize("source", [IDS, ENGINE])
@pytest.mark.parametrize("client", ["", "mine", 'a "b" \\ é'])
def test_an_answer_shows_the_clients_own_id_and_never_the_inner_one(
    llama_folder: Path, source: Source, client: str
) -> None:
    request_id = RequestId(NO_ID.inner, client)
    answer = TextAnswer(source, texts_of(tokenizer_of(llama_folder)), request_id)
    out = whole(answer, from_triton([22557], source.model, id=NO_ID.inner))
    assert out == expected("Hello", **({"id": client} if client else {}))
    error = b'{"error":"[request id: %s] too long"}' % NO_ID.inner.encode()
    answer = TextAnswer(source, texts_of(tokenizer_of(llama_folder)), request_id)
    said = json.loads(whole(answer, error, status=400))["error"]
    assert f"[request id: {client or '<id_unknown>'}] too long" in said

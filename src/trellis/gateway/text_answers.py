# SPDX-License-Identifier: Apache-2.0
"""From an answer that holds token ids to the one that `ensemble` would have given.

Triton's bytes are parsed and written anew: ids become text under the state of their stream, and
the rest of each JSON object stays, under the ensemble's names. What comes here is one sequence of
one prompt.
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

import httptools

from trellis.gateway.replies import LAST_CHUNK, Refusal, chunk, quoted
from trellis.pipeline.decode import Detokenizer, failure

# As Triton writes them: several in a list, one alone. In no string: quotes are escaped there.
IDS = re.compile(rb'"output_ids":(-?[0-9]+|\[[-0-9,]*\]),?')
STRING = rb'"(?:[^"\\]|\\.)*"'
MEMBER = re.compile(rb'"(\w+)":(%s|\[(?:[^"\]]|%s)*\]|[^,"\[\]{}]+)' % (STRING, STRING))
ERROR = b'{"error":"'
EVENT, EVENT_END = b"data: ", b"\n\n"
# What Triton says of an ensemble's answers, and of none of a model's own.
SEQUENCE = {b"sequence_end": b"false", b"sequence_id": b"0", b"sequence_start": b"false"}
log = logging.getLogger("trellis.gateway")


@dataclass(frozen=True)
class Source:
    """The model that is asked for an ensemble's ids, and what its answers are called there."""

    ensemble: str  # that the client asked
    model: str
    names: Mapping[bytes, bytes]  # its outputs that clients see, and the ensemble's names of them
    hidden: frozenset[bytes]  # its other outputs
    is_engine: bool  # else it is an ensemble, too

    def error(self, data: bytes) -> bytes:
        """An error as the ensemble says it."""
        if self.is_engine:
            about = b"in ensemble '%s', " % self.ensemble.encode()
            return data.replace(ERROR, ERROR + about, 1)
        return data.replace(f"'{self.model}'".encode(), f"'{self.ensemble}'".encode(), 1)


class TextAnswer:
    """One answer on its way: `feed` bytes in, bytes out, until `ended`."""

    def __init__(
        self,
        source: Source,
        texts: Detokenizer,
        skip_special_tokens: bool | None = None,
        in_chunks: bool = True,
    ) -> None:
        """`skip_special_tokens`: what the request says of it, if anything.

        `in_chunks`: whether it asks for a stream; an answer that is none may be an event, too.
        """
        self._source = source
        self._texts = texts
        self._skip = skip_special_tokens
        self._in_chunks = in_chunks
        self._sequence = texts.sequence(skip_special_tokens)
        self._parser = httptools.HttpResponseParser(self)
        self._out: list[bytes] = []
        self._body = b""
        self._around: tuple[bytes, bytes] | None = None  # what stood around the last ids
        self._length: int | None = None
        self._cut = 0
        self._last = False  # a Python engine says that nothing follows
        self._head = b""
        self._message = ""
        self.failed = False  # a stream ends with the error, whatever else would come
        self.success_of = ""  # the ensemble, once it is answered
        self.ended = False
        self._begin()

    def _begin(self) -> None:
        """Before a head."""
        self._line = b""
        self._headers: list[bytes] = []
        self._length_at: int | None = None
        self._streams = False

    def feed(self, data: bytes) -> bytes:
        """What goes to the client after these bytes of Triton's. Raises HttpParserError."""
        self._parser.feed_data(data)
        out = b"".join(self._out)
        self._out.clear()
        if self.ended:  # the parser holds this object: nothing large waits for the collector
            self._body, self._around, self._head = b"", None, b""
            del self._parser
        return out

    # What httptools calls.

    def on_status(self, reason: bytes) -> None:
        """The words behind the status."""
        self._line += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        lowered = name.lower()
        if lowered == b"content-type":
            self._streams = value.startswith(b"text/event-stream")
        if lowered == b"content-length":
            self._length_at = len(self._headers)  # another one will stand there
        self._headers.append(b"%s: %s\r\n" % (name, value))

    def on_headers_complete(self) -> None:
        """The head is there; that of a whole answer waits for its length."""
        self._line = b"HTTP/1.1 %d %s\r\n" % (self._parser.get_status_code(), self._line)
        if self._streams:
            self._out += [self._line, *self._headers, b"\r\n"]

    def on_body(self, data: bytes) -> None:
        """A piece of the body: of a stream, what is complete goes on."""
        data = self._body + data if self._body else data
        if not self._streams:
            self._body = data
            return
        events, end, self._body = data.rpartition(EVENT_END)
        if end and not self.failed:
            self._out.append(chunk(b"".join(map(self._event, events.split(EVENT_END)))))
            if self.failed:
                self._out.append(LAST_CHUNK)

    def on_message_complete(self) -> None:
        """The end."""
        if self._parser.get_status_code() < 200:  # only announces the answer
            self._begin()
            return
        self.ended = True
        if self._parser.get_status_code() == 200 and not self.failed:
            self.success_of = self._source.ensemble
        if self._streams:
            if not self.failed:
                self._end_chunks(self._body)
            return
        body = self._object(self._body)
        if self.failed:
            self._out.append(Refusal(400, self._message).reply(keep_alive=True))
            return
        if self._length_at is not None:
            self._headers[self._length_at] = b"Content-Length: %d\r\n" % len(body)
        self._out += [self._line, *self._headers, b"\r\n"]
        if self._length_at is not None:
            self._out.append(body)
            return
        self._end_chunks(body)

    def _end_chunks(self, rest: bytes) -> None:
        if rest:
            self._out.append(chunk(rest))
        self._out.append(LAST_CHUNK)

    def _event(self, event: bytes) -> bytes:
        if self.failed:  # by one before it: that was the last
            return b""
        if event.startswith(EVENT):
            event = EVENT + self._object(event[len(EVENT) :])
        return event + EVENT_END

    def _object(self, data: bytes) -> bytes:
        """A JSON object of Triton's with the text in place of the ids."""
        found = IDS.search(data)
        if found is not None:
            around = (data[: found.start()], data[found.end() :])
        elif data.startswith(ERROR):
            fails = self._streams or self._parser.get_status_code() != 200
            # Else it is of Triton's front end: a model that streams was asked by /generate.
            return self._source.error(data) if fails else data
        else:  # no tokens: TensorRT-LLM's answer to a stop
            around = (data, b"")
        if around != self._around:  # mostly all of a stream's chunks have the same around their ids
            self._around = around
            self._read(b"".join(around))
        ids = _ids(found[1]) if found else []
        try:
            ids = self._texts.counted(ids, self._length)
            if self._last or (self._streams and self._in_chunks):
                text = self._sequence.add(ids, self._last, self._cut)
            else:
                text = self._texts.whole(ids, self._skip, self._cut)
        except Exception as error:  # whatever a tokenizer_type raises: this answer's alone
            log.exception("tokens could not be decoded")
            self.failed = True
            self._message = f"in ensemble '{self._source.ensemble}', {failure(error)}"
            return json.dumps({"error": self._message}).encode()
        return self._head + quoted(text) + b"}"

    def _read(self, rest: bytes) -> None:
        """Keep what stands beside the ids, and all that is written before the text.

        As bytes: a number that is read and written again may have other digits.
        """
        source = self._source
        found = dict(MEMBER.findall(rest))
        self._length = _number(found.get(b"sequence_length"))
        self._cut = _number(found.get(b"text_cut")) or 0
        self._last = found.get(b"stream_end") == b"true"
        kept = {
            source.names.get(name, name): value
            for name, value in found.items()
            if name not in source.hidden
        }
        kept[b"model_name"] = b'"%s"' % source.ensemble.encode()
        kept |= SEQUENCE
        members = [b'"%s":%s,' % (name, kept[name]) for name in sorted(kept)]  # as Triton has them
        self._head = b'{%s"text_output":' % b"".join(members)


def _number(value: bytes | None) -> int | None:
    return None if value is None else int(value)


def _ids(value: bytes) -> list[int]:
    """Of JSON, whose one-element arrays Triton writes as numbers.

    >>> _ids(b"7"), _ids(b"[7,8]"), _ids(b"[]")
    ([7], [7, 8], [])
    """
    ids: int | list[int] = json.loads(value)
    return ids if isinstance(ids, list) else [ids]

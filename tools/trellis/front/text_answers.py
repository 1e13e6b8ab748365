"""From an answer of `ensemble_ids` to the one that `ensemble` would have given.

Triton's bytes are parsed and written anew: ids become text under the state of their stream, and
the rest of each JSON object stays. What comes here is one sequence of one prompt.
"""

import json
import logging
import re

import httptools

from trellis.front.replies import LAST_CHUNK, Refusal, chunk
from trellis.front.settings import IDS_SUFFIX
from trellis.front.texts import Texts

# As Triton writes them: several in a list, one alone. In no string: quotes are escaped there.
IDS = re.compile(rb'"output_ids":(-?[0-9]+|\[[-0-9,]*\]),?')
LENGTH = re.compile(rb'"sequence_length":([0-9]+),?')
CUT = re.compile(rb'"text_cut":([0-9]+),?')
EVENT, EVENT_END = b"data: ", b"\n\n"
log = logging.getLogger("trellis.front")
_quoted = json.encoder.encode_basestring


class TextAnswer:
    """One answer on its way: `feed` bytes in, bytes out, until `ended`."""

    def __init__(self, name: str, shown: frozenset[str], texts: Texts) -> None:
        """`name`: of the ensemble that the client asked; `shown`: its outputs."""
        self._name = name
        self._shown = shown
        self._renamed = [b'"model_name":"%s"' % n.encode() for n in (name + IDS_SUFFIX, name)]
        self._texts = texts
        self._push = texts.new_decoder().push
        self._parser = httptools.HttpResponseParser(self)
        self._out: list[bytes] = []
        self._body = b""
        self._around: tuple[bytes, bytes] | None = None  # what stood around the last ids
        self._length: int | None = None
        self._cut = 0
        self._head = b""
        self._message = ""
        self.failed = False  # a stream ends with the error, whatever else would come
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
        elif self._renamed[0] in data:  # no tokens: TensorRT-LLM's answer to a stop
            around = (data, b"")
        else:  # an error
            ensemble = f"'{self._name}{IDS_SUFFIX}'".encode()
            return data.replace(ensemble, f"'{self._name}'".encode(), 1)
        if around != self._around:  # mostly all of a stream's chunks have the same around their ids
            self._around = around
            self._read(b"".join(around))
        ids = _ids(found[1]) if found else []
        try:
            text = self._text(ids)
        except Exception as error:  # whatever a tokenizer_type raises: this answer's alone
            log.exception("tokens could not be decoded")
            self.failed = True
            self._message = f"in ensemble '{self._name}', the tokens could not be decoded: {error}"
            return json.dumps({"error": self._message}).encode()
        return self._head + _quoted(text).encode("utf-8", "replace") + b"}"

    def _read(self, rest: bytes) -> None:
        """Keep what stands beside the ids, and all that is written before the text.

        As bytes: a number that is read and written again may have other digits.
        """
        self._length, rest = _number(LENGTH, rest, keep="sequence_length" in self._shown)
        cut, rest = _number(CUT, rest, keep=False)
        self._cut = cut or 0
        rest = rest.replace(self._renamed[0], self._renamed[1], 1)
        self._head = rest[:-1].rstrip(b",") + b',"text_output":'

    def _text(self, ids: list[int]) -> str:
        ids = self._texts.counted(ids, self._length)
        text = self._push(ids) if self._streams else self._texts.decode(ids)
        return text[: -self._cut] if self._cut else text


def _number(member: re.Pattern[bytes], data: bytes, keep: bool) -> tuple[int | None, bytes]:
    """The number of a member of a JSON object, and the object, without it unless it is to stay."""
    found = member.search(data)
    if found is None:
        return None, data
    return int(found[1]), data if keep else data[: found.start()] + data[found.end() :]


def _ids(value: bytes) -> list[int]:
    """Of JSON, whose one-element arrays Triton writes as numbers.

    >>> _ids(b"7"), _ids(b"[7,8]"), _ids(b"[]")
    ([7], [7, 8], [])
    """
    ids: int | list[int] = json.loads(value)
    return ids if isinstance(ids, list) else [ids]

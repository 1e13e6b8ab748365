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

from trellis.gateway.answers import Answer
from trellis.gateway.ids import RequestId
from trellis.gateway.refusals import quoted
from trellis.pipeline.decode import Detokenizer, failure

# As Triton writes them: several in a list, one alone. In no string: quotes are escaped there.
IDS = re.compile(rb'"output_ids":(-?[0-9]+|\[[-0-9,]*\]),?')
STRING = rb'"(?:[^"\\]|\\.)*"'
MEMBER = re.compile(rb'"(\w+)":(%s|\[(?:[^"\]]|%s)*\]|[^,"\[\]{}]+)' % (STRING, STRING))
ERROR = b'{"error":"'
ID = b"id"
OPENS = ord("[")
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


class TextAnswer(Answer):
    """One answer of token ids on its way, which becomes text."""

    def __init__(
        self,
        source: Source,
        texts: Detokenizer,
        request_id: RequestId,
        skip_special_tokens: bool | None = None,
        in_chunks: bool = True,
    ) -> None:
        """`skip_special_tokens`: what the request says of it, if anything.

        `in_chunks`: whether it asks for a stream; an answer that is none may be an event, too.
        """
        super().__init__(request_id)
        self._source = source
        self._texts = texts
        self._skip = skip_special_tokens
        self._in_chunks = in_chunks
        self._sequence = texts.sequence(skip_special_tokens)
        self._around: tuple[bytes, bytes] | None = None  # what stood around the last ids
        self._length: int | None = None
        self._cut = 0
        self._last = False  # a Python engine says that nothing follows
        self._head = b""

    def end(self) -> bytes:
        """What is left; and the answer counts if it was none of an error."""
        body = super().end()
        if self.status == 200 and not (self.failed or self.refused):
            self.success_of = (self._source.ensemble,)
        return body

    def _object(self, data: bytes) -> bytes:
        """A JSON object of Triton's with the text in place of the ids."""
        found = IDS.search(data)
        if found is not None:
            around = (data[: found.start()], data[found.end() :])
        elif data.startswith(ERROR):
            fails = self.streams or self.status != 200
            self.refused = True
            # Else it is of Triton's front end: a model that streams was asked by /generate.
            return self.request_id.restored(self._source.error(data) if fails else data)
        else:  # no tokens: TensorRT-LLM's answer to a stop
            around = (data, b"")
        if around != self._around:  # mostly all of a stream's chunks have the same around their ids
            self._around = around
            self._read(b"".join(around))
        ids = _ids(found[1]) if found else []
        try:
            ids = self._texts.counted(ids, self._length)
            self.meter.tokens += len(ids)
            if self._last or (self.streams and self._in_chunks):
                text = self._sequence.add(ids, self._last, self._cut)
            else:
                text = self._texts.whole(ids, self._skip, self._cut)
        except Exception as error:  # whatever a tokenizer_type raises: this answer's alone
            log.error("tokens could not be decoded: %s", error)
            self.failed = True
            message = f"in ensemble '{self._source.ensemble}', {failure(error)}"
            return json.dumps({"error": message}).encode()
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
        kept.pop(ID, None)
        self._head = head(source, self.request_id, kept)


def head(source: Source, request_id: RequestId, members: Mapping[bytes, bytes]) -> bytes:
    """All of an answer's JSON before its text; `members`: what it has beside, values as JSON."""
    every = {**members, **SEQUENCE, b"model_name": quoted(source.ensemble)}
    if request_id.client:
        every[ID] = quoted(request_id.client)
    written = [b'"%s":%s,' % (name, every[name]) for name in sorted(every)]  # as Triton has them
    return b'{%s"text_output":' % b"".join(written)


def _number(value: bytes | None) -> int | None:
    return None if value is None else int(value)


def _ids(value: bytes) -> list[int]:
    """Of JSON, whose one-element arrays Triton writes as numbers.

    >>> _ids(b"7"), _ids(b"[7,8]"), _ids(b"[]")
    ([7], [7, 8], [])
    """
    if value[0] != OPENS:
        return [int(value)]
    return list(map(int, value[1:-1].split(b","))) if len(value) > 2 else []

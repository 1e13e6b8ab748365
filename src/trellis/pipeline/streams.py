# SPDX-License-Identifier: Apache-2.0
"""The state of the streams in flight: one decoder a key, in a bounded table that forgets.

A stream that ends takes its state with it. One that its client or its engine abandoned is dropped
after a quiet time, or when the table is full and it is the longest unheard of.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Protocol


class Decoder(Protocol):
    """Ids in, text out; see trellis.tokenizers.StreamDecoder."""

    def push(self, ids: list[int]) -> str:
        """The text that these ids complete."""

    def end(self) -> str:
        """What is left at the end of the stream."""


class Stream:
    """One stream's decoder, and how many of its chunks came."""

    __slots__ = ("chunks", "decoder", "last_used")

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.chunks = 0
        self.last_used = 0.0


class StreamTable:
    """Streams by key, oldest use first. Who decodes a batch and who asks meanwhile hold `lock`."""

    def __init__(
        self,
        new_decoder: Callable[..., Decoder],
        max_streams: int = 65536,
        quiet_seconds: float = 600,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`new_decoder` is given what a stream says of its special tokens, if it says anything."""
        self._new_decoder = new_decoder
        self._max_streams = max_streams
        self._quiet_seconds = quiet_seconds
        self._clock = clock
        self._streams: OrderedDict[Hashable, Stream] = OrderedDict()
        self.lock = threading.Lock()
        self.forgotten = 0  # streams over the limit, or quiet for too long

    def __len__(self) -> int:
        return len(self._streams)

    def decode(
        self, key: Hashable, ids: list[int], ended: bool, skip_special_tokens: bool | None = None
    ) -> str:
        """The text of the next ids of a stream; `ended` with the last of them.

        `skip_special_tokens`: whether its text leaves them out; read with the first ids.
        """
        streams = self._streams
        stream = streams.get(key)
        if stream is None:
            asked = () if skip_special_tokens is None else (skip_special_tokens,)
            stream = streams[key] = Stream(self._new_decoder(*asked))
        else:
            streams.move_to_end(key)
        stream.chunks += 1
        try:
            text = stream.decoder.push(ids)
            if ended:
                text += stream.decoder.end()
        except Exception:
            del streams[key]  # its request ends with this error: no last chunk will come
            raise
        if ended:
            del streams[key]
            return text
        stream.last_used = self._clock()
        self._forget(stream.last_used)
        return text

    def counts(self, keys: Iterable[Hashable]) -> list[int]:
        """How many chunks came of each stream; 0 for those that ended or are not known."""
        streams = map(self._streams.get, keys)
        return [0 if stream is None else stream.chunks for stream in streams]

    def drop(self, keys: Iterable[Hashable]) -> None:
        """Forget streams that ended without a last chunk."""
        for key in keys:
            self._streams.pop(key, None)

    def _forget(self, now: float) -> None:
        """Drop what is over the limit or quiet for too long; the oldest stand first."""
        streams = self._streams
        while len(streams) > self._max_streams or (
            streams and now - next(iter(streams.values())).last_used > self._quiet_seconds
        ):
            streams.popitem(last=False)
            self.forgotten += 1

# SPDX-License-Identifier: Apache-2.0
"""The state of the streams in flight: one decoder a key, in a bounded table that forgets.

A stream that ends takes its state with it. One that its client or its engine abandoned is dropped
after a quiet time, or when the table is full and it is the longest unheard of.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable

from trellis.pipeline.decode import Detokenizer, SequenceText


class Stream:
    """One stream's text so far, and how many of its chunks came."""

    __slots__ = ("chunks", "last_used", "text")

    def __init__(self, text: SequenceText) -> None:
        self.text = text
        self.chunks = 0
        self.last_used = 0.0


class StreamTable:
    """Streams by key, oldest use first. Who decodes a batch and who asks meanwhile hold `lock`."""

    def __init__(
        self,
        detokenizer: Detokenizer,
        max_streams: int = 65536,
        quiet_seconds: float = 600,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._detokenizer = detokenizer
        self._max_streams = max_streams
        self._quiet_seconds = quiet_seconds
        self._clock = clock
        self._streams: OrderedDict[Hashable, Stream] = OrderedDict()
        self.lock = threading.Lock()
        self.forgotten = 0  # streams over the limit, or quiet for too long

    def __len__(self) -> int:
        return len(self._streams)

    def decode(
        self,
        key: Hashable,
        ids: list[int],
        ended: bool,
        skip_special_tokens: bool | None = None,
        cut: int = 0,
    ) -> str:
        """The text of the next ids of a stream; `ended` with the last of them.

        `skip_special_tokens`: whether its text leaves them out; read with the first ids.
        `cut`: how many characters at its end a stop word takes.
        """
        streams = self._streams
        stream = streams.get(key)
        if stream is None:
            stream = streams[key] = Stream(self._detokenizer.sequence(skip_special_tokens))
        else:
            streams.move_to_end(key)
        stream.chunks += 1
        try:
            text = stream.text.add(ids, ended, cut)
        except Exception:
            del streams[key]  # its request ends with this error: no last chunk will come
            raise
        if ended:
            del streams[key]
            return text
        now = stream.last_used = self._clock()
        oldest = next(iter(streams.values()))
        if len(streams) > self._max_streams or now - oldest.last_used > self._quiet_seconds:
            self._forget(now)
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

# SPDX-License-Identifier: Apache-2.0
"""The answers of TensorRT-LLM's own engine, which carry no key and no end of stream.

A response belongs to a stream if `preprocessing` announced its request's id as one; then its place
in the answer (prompt, sequence) and the id's generation are the key of its state. Any other is a
whole answer: decoded at once, [1, beams].
"""

import logging
from collections.abc import Hashable
from functools import lru_cache

import numpy as np

from trellis.contract.model_names import model_of
from trellis.ipc.stream_announcements import UNKNOWN, Begun, Listener, id_digest
from trellis.pipeline.decode import Detokenizer
from trellis.pipeline.model_settings import ModelSettings
from trellis.pipeline.streams import StreamTable
from trellis.pipeline.told import Tensors, told

log = logging.getLogger("trellis.postprocessing")

SHORT_ID = 64  # characters: digests of longer ids are not kept, for the keys' sake
_digest = lru_cache(4096)(id_digest)


class EngineAnswers:
    """Texts of responses that are known by their request's id."""

    def __init__(self, detokenizer: Detokenizer, settings: ModelSettings) -> None:
        most = settings.integer("max_streams") or 65536
        quiet = settings.integer("stream_quiet_seconds") or 600
        self._detokenizer = detokenizer
        self._streams = StreamTable(detokenizer, most, quiet)
        self._listener = Listener(settings.folder.parent.parent, most, model_of(settings.name))
        self._warned = False

    def begin_batch(self) -> None:
        """Learn of the streams that began, before their first tokens are decoded."""
        self._listener.drain()

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def answer(
        self, request_id: str, arrays: dict[str, np.ndarray]
    ) -> tuple["str | np.ndarray", Tensors]:
        """The text of TOKENS_BATCH [1, 1, n], of [rows, beams, n] an array of UTF-8.

        And what its request asked to be told besides.
        """
        tokens = arrays["TOKENS_BATCH"]
        lengths = arrays.get("SEQUENCE_LENGTH")
        stream, begun = self._stream(request_id, arrays) if request_id else (None, UNKNOWN)
        skip = begun.skip_special_tokens
        text: str | np.ndarray
        if tokens.shape[:2] == (1, 1):  # what nearly every answer is
            length = None if lengths is None else lengths.item(0)
            sequences = [self._detokenizer.counted(tokens[0, 0].tolist(), length)]
            text = self._one(stream, (0, 0), sequences[0], skip)
        else:
            sequences = []
            text = np.empty(tokens.shape[:2], np.object_)
            for at in np.ndindex(tokens.shape[:2]):
                length = None if lengths is None else int(lengths[at])
                ids = self._detokenizer.counted(tokens[at].tolist(), length)
                text[at] = self._one(stream, at, ids, skip).encode()
                sequences.append(ids)
        if not begun.asked:
            return text, {}
        return text, told(begun, _index(arrays, "BATCH_INDEX"), sequences)

    def _stream(
        self, request_id: str, arrays: dict[str, np.ndarray]
    ) -> tuple[tuple[Hashable, ...] | None, Begun]:
        """What the streams of a response have in common; None where its request does not stream.

        And what is known of that request.
        """
        digest = _digest(request_id) if len(request_id) <= SHORT_ID else id_digest(request_id)
        begun = self._listener.begun(digest)
        if not self._listener.heard:
            self._warn()
        if begun.generation is None:
            return None, begun
        places = _index(arrays, "BATCH_INDEX"), _index(arrays, "SEQUENCE_INDEX")
        return (digest, begun.generation, *places), begun

    def _one(
        self,
        stream: tuple[Hashable, ...] | None,
        at: tuple[int, ...],
        ids: list[int],
        skip: bool | None,
    ) -> str:
        """The text of one sequence's ids."""
        if stream is not None:
            return self._streams.decode(stream + at, ids, False, skip)
        return self._detokenizer.whole(ids, skip)

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning("no notice of new streams came: an id used again within minutes garbles")


def _index(arrays: dict[str, np.ndarray], name: str) -> int:
    array = arrays.get(name)
    return 0 if array is None or not array.size else int(array.item(0))

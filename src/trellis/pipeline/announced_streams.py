# SPDX-License-Identifier: Apache-2.0
"""Streams of TensorRT-LLM's own engine, which are known by the id of their request.

A stream without an id cannot be told from others behind that engine: it is answered in one piece.
What a request says of special tokens is announced with its id, too, and what its answer's tokens
are counted by, if it asks for that.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from trellis.contract.client_inputs import SKIP
from trellis.ipc.stream_announcements import Announcer, CountedPrompt, Notice
from trellis.pipeline.encode import Stop
from trellis.pipeline.engine_inputs import TOLD
from trellis.pipeline.prompts import Prompts

log = logging.getLogger("trellis.preprocessing")


class IdStreams:
    """Settles which requests stream, and announces them to `postprocessing`."""

    def __init__(self, repository: Path, model: str) -> None:
        self._announcer = Announcer(repository, model)
        self._warned = False

    def begin(
        self,
        read: Iterable[tuple[Any, list[Any]]],
        counted: Callable[[Prompts, list[Any]], tuple[CountedPrompt, ...]],
    ) -> None:
        """Turn streaming off where there is no id; announce those that have one.

        Where nobody hears that, those that ask something of `postprocessing` are turned down.

        `read`: requests, and the ids of their texts, from which `counted` makes what is counted.
        """
        begun, asking = [], []
        for prompts, rows in read:
            if isinstance(prompts, Stop):
                begun.append(Notice(prompts.request_id, False, cancels=True))
            if not isinstance(prompts, Prompts) or prompts.asked is None:
                continue
            asked = prompts.asked
            if asked.request_id:
                bits = sum(TOLD[name] for name in asked.told)
                told = counted(prompts, rows) if bits else ()
                skip = asked.skip_special_tokens
                begun.append(Notice(asked.request_id, asked.streams, skip, bits, told))
                if asked.told or skip is not None:
                    asking.append(asked)
            elif asked.streams:
                asked.streams = False
                self._warn()
        if begun and not self._announcer.announce(begun):
            for asked in asking:
                asked.unheard = asked.told[0] if asked.told else SKIP

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "a request with stream: true has no id, and is answered in one piece; with"
                " TensorRT-LLM's engine a stream needs one"
            )

# SPDX-License-Identifier: Apache-2.0
"""Streams of TensorRT-LLM's own engine, which are known by the id of their request.

A stream without an id cannot be told from others behind that engine: it is answered in one piece.
What a request says of special tokens is announced with its id, too.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trellis.ipc.stream_announcements import Announcer, Notice
from trellis.pipeline.prompts import Prompts

log = logging.getLogger("trellis.preprocessing")


class IdStreams:
    """Settles which requests stream, and announces them to `postprocessing`."""

    def __init__(self, repository: Path) -> None:
        self._announcer = Announcer(repository)
        self._warned = False

    def begin(self, read: Iterable[Any]) -> None:
        """Turn streaming off where there is no id; announce those that have one.

        Where nobody hears that, those that say something of special tokens are turned down.
        """
        begun, asking = [], []
        for prompts in read:
            if not isinstance(prompts, Prompts) or prompts.asked is None:
                continue
            asked = prompts.asked
            if asked.request_id:
                begun.append(Notice(asked.request_id, asked.streams, asked.skip_special_tokens))
                if asked.skip_special_tokens is not None:
                    asking.append(asked)
            elif asked.streams:
                asked.streams = False
                self._warn()
        if begun and not self._announcer.announce(begun):
            for asked in asking:
                asked.unheard = True

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "a request with stream: true has no id, and is answered in one piece; with"
                " TensorRT-LLM's engine a stream needs one"
            )

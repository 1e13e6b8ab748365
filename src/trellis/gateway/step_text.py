# SPDX-License-Identifier: Apache-2.0
"""From the events of a step socket to the answer that `ensemble` would have given."""

import json
import logging
from typing import Any

from trellis.gateway.answers import EVENT, EVENT_END, Answer
from trellis.gateway.ids import RequestId
from trellis.gateway.refusals import one_line, quoted
from trellis.gateway.step_channel import PLAIN, REFUSED
from trellis.gateway.text_answers import Source, head
from trellis.pipeline.decode import Detokenizer, failure

log = logging.getLogger("trellis.gateway")


class StepText(Answer):
    """One answer of a Python engine on its way: `feed` takes its events."""

    def __init__(
        self,
        source: Source,
        version: str,
        texts: Detokenizer,
        request_id: RequestId,
        skip_special_tokens: bool | None = None,
    ) -> None:
        """`version`: of the model that is asked."""
        super().__init__(request_id)
        self._source = source
        self._version = {b"model_version": quoted(version)}
        self._sequence = texts.sequence(skip_special_tokens)
        self._head = head(source, request_id, self._version)
        self._body = b""

    def feed(self, event: Any) -> bytes:
        """What goes to the client after this event."""
        made = self._written(event)
        if self.streams:
            return one_line(EVENT + made + EVENT_END)
        self._body = made
        return b""

    def end(self) -> bytes:
        """What goes to the client at the end; and the answer counts if it was none of an error."""
        if self.failed and not self.streams:
            self.status = 400
        if self.status == 200 and not (self.failed or self.refused):
            self.success_of = (self._source.ensemble, self._source.model)
        return self._body

    def _written(self, event: list[Any]) -> bytes:
        if len(event) == REFUSED:
            self.refused = True
            return self._error(event[1])
        plain = len(event) == PLAIN
        ended, cut = (False, 0) if plain else event[2:4]
        try:
            text = self._sequence.add(event[1], ended, cut)
        except Exception as error:  # whatever a tokenizer_type raises: this answer's alone
            log.error("tokens could not be decoded: %s", error)
            self.failed = True
            return self._error(failure(error))
        return self._answer(text, {} if plain else event[4], ended)

    def _answer(self, text: str, outputs: dict[str, Any], ended: bool) -> bytes:
        """A chunk with what the engine gives beside it; `ended`: nothing follows."""
        before = self._with(outputs) if outputs else self._head
        return before + quoted(text) + b"}"

    def _with(self, outputs: dict[str, Any]) -> bytes:
        """All before the text, with other outputs that the ensemble shows."""
        members = dict(self._version)
        for name, value in outputs.items():
            shown = self._source.names.get(name.encode())
            if shown is not None:
                members[shown] = _values(value)
        return head(self._source, self.request_id, members)

    def _error(self, message: str) -> bytes:
        return b'{"error":%s}' % quoted(f"in ensemble '{self._source.ensemble}', {message}")


def _values(value: Any) -> bytes:
    """A tensor's values as Triton writes them: one alone in no list.

    >>> _values(["stop"]), _values([1, 2]), _values(3)
    (b'"stop"', b'[1,2]', b'3')
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return json.dumps(value, separators=(",", ":")).encode()

# SPDX-License-Identifier: Apache-2.0
"""What the parsers of all formats share: events, and calls that turn out to be none."""

from trellis.parsers.format import (
    CallArguments,
    CallBegin,
    CallEnd,
    Event,
    Reasoning,
    Setup,
    Span,
    Text,
)
from trellis.parsers.joined import join_events
from trellis.parsers.reader import NotACallError, Reader, Steps


class SteppedParser:
    """A Parser of which a subclass writes `read`, as if the text were whole.

    What `read` does not read is Text. A call is read in `attempt`, and told by `begin_call`,
    `add_arguments` and `end_call`; Setup.constrained decides when that is given.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.reader = Reader()
        self._events: list[Event] = []
        self._reasoned: list[Span] = []
        self._held: list[Event] = []  # of a call that is not complete
        self._number = 0
        self._open = False  # whether a call was begun and is not complete, in what was given
        self._given = False  # whether anything of this attempt was given
        self._steps = self._run()

    def read(self) -> Steps[None]:
        """Read an answer."""
        raise NotImplementedError

    def feed(self, text: str) -> list[Event]:
        """See Parser.feed."""
        self.reader.push(text)
        return self._advance()

    def end(self) -> list[Event]:
        """See Parser.end."""
        self.reader.close()
        return self._advance()

    def take_reasoned(self) -> tuple[list[Span], int]:
        """See TellsReasoning."""
        spans, self._reasoned = self._reasoned, []
        return spans, 0 if self.reader.marked else self.reader.at

    def _run(self) -> Steps[None]:
        yield from self.read()
        yield from self.reader.rest(self.text)

    def _advance(self) -> list[Event]:
        next(self._steps, None)
        events, self._events = self._events, []
        return join_events(events) if len(events) > 1 else events

    def text(self, text: str) -> None:
        """Give text to be shown."""
        if text:
            self._events.append(Text(text))

    def reasoning(self, text: str) -> None:
        """Give thoughts, which were read last."""
        if text:
            self._reasoned.append((self.reader.at - len(text), self.reader.at))
            self._events.append(Reasoning(text))

    def attempt(self, call: Steps[None], opening: int | None = None) -> Steps[bool]:
        """Read one call or several that begin here; false if what is here is not what `call` reads.

        Then the text is back where nothing was given of. If nothing at all was given, the first
        `opening` characters, the marker that was taken for a beginning, have become text. Without
        `opening`, all that `call` read and did not give has become text: so a format whose calls
        can be long before they turn out to be none looks at each character once.
        """
        self.reader.mark()
        self._given = False
        try:
            yield from call
        except NotACallError:
            self._held.clear()
            self._number += self._open
            self._open = False
            if opening is None:
                self.text(self.reader.release())
                return False
            self.reader.rewind()
            if not self._given:
                self.text(self.reader.take(opening))
            return False
        self.reader.unmark()
        return True

    def begin_call(self, name: str, call_id: str = "") -> None:
        """Tell a call; nothing of it is given before it is complete, unless it is constrained."""
        self._tell(CallBegin(self._number, name, call_id))

    def set_call_id(self, call_id: str) -> None:
        """Tell a call's id after its name; too late where the call was given already."""
        if self._held and isinstance(self._held[0], CallBegin):
            self._held[0] = self._held[0]._replace(call_id=call_id)

    def add_arguments(self, text: str) -> None:
        """Tell a piece of the call's arguments."""
        if text:
            self._tell(CallArguments(self._number, text))

    def end_call(self) -> None:
        """Tell that the call is complete, and give what was held of it."""
        self._held.append(CallEnd(self._number))
        self._number += 1
        self._give()
        self._open = False

    def _tell(self, event: Event) -> None:
        self._held.append(event)
        if self.setup.constrained:
            self._give()

    def _give(self) -> None:
        self._events += self._held
        self._held.clear()
        self._given = self._open = True
        self.reader.mark()

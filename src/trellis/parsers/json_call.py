# SPDX-License-Identifier: Apache-2.0
"""Reading a call that is a JSON object: {"name": "f", "arguments": {...}}."""

import json
from collections.abc import Collection

from trellis.parsers.reader import NotACallError, Reader, Steps
from trellis.parsers.stepped import SteppedParser

_STRINGS = ("name", "id", "type")


class JsonCall:
    """One object. Its keys are in any order, each once.

    `name`, one of `arguments` with an object, and perhaps `id`, and `type` that says "function".
    """

    def __init__(
        self, parser: SteppedParser, *arguments: str, names: Collection[str] | None = None
    ) -> None:
        """What is read.

        Args:
            parser: Is told the call.
            arguments: The names of the key that has a call's arguments.
            names: The functions that may be called, where an object is no call else; None: any.
        """
        self._parser = parser
        self._keys = arguments
        self._names = names
        self._texts: dict[str, str] = {}
        self._early: list[str] = []  # arguments before the name
        self._has_arguments = False

    @property
    def name(self) -> str:
        """The function's name, once it was read."""
        return self._texts.get("name", "")

    def read(self) -> Steps[None]:
        """Read the object and tell the call; what ends the call is for the format.

        Raises NotACallError for anything else.
        """
        reader = self._parser.reader
        yield from reader.expect("{")
        while True:
            yield from self._member(reader)
            yield from reader.space()
            if not (yield from reader.follows(",")):
                break
        yield from reader.expect("}")
        if not self.name or not self._has_arguments:
            raise NotACallError

    def _member(self, reader: Reader) -> Steps[None]:
        yield from reader.space()
        key = yield from read_string(reader)
        yield from reader.space()
        yield from reader.expect(":")
        yield from reader.space()
        if key in self._keys and not self._has_arguments:
            yield from self._arguments(reader)
        elif key in _STRINGS and key not in self._texts:
            self._texts[key] = yield from read_string(reader)
            self._check_text(key)
        else:
            raise NotACallError

    def _arguments(self, reader: Reader) -> Steps[None]:
        self._has_arguments = True
        if (yield from reader.peek()) != "{":
            raise NotACallError
        yield from reader.json(self._parser.add_arguments if self.name else self._early.append)

    def _check_text(self, key: str) -> None:
        if key == "name":
            if not self.name or (self._names is not None and self.name not in self._names):
                raise NotACallError
            self._parser.begin_call(self.name, self._texts.get("id", ""))
            self._parser.add_arguments("".join(self._early))
        elif key == "id":
            self._parser.set_call_id(self._texts["id"])
        elif key == "type" and self._texts[key] != "function":
            raise NotACallError


def read_string(reader: Reader) -> Steps[str]:
    """A JSON string, decoded. Raises NotACallError for anything else."""
    if (yield from reader.peek()) != '"':
        raise NotACallError
    pieces: list[str] = []
    yield from reader.json(pieces.append)
    text = str(json.loads("".join(pieces)))
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise NotACallError  # half of a surrogate pair, which is no text
    return text

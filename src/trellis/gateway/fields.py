# SPDX-License-Identifier: Apache-2.0
"""Checks of one value of a `/generate` body against the tensor that Triton makes of it."""

import math
import struct
from dataclasses import dataclass
from typing import Any

from trellis.contract.client_inputs import STOP
from trellis.gateway.refusals import SHOWN, Refusal, shown

INTEGERS = {
    f"{sign}INT{bits}": (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}
FLOATS = {"FP32": "f", "FP64": "d"}
WANTED = {"STRING": "a string", "BOOL": "true or false"}


@dataclass(frozen=True)
class Field:
    """An input: its type, and how many values it takes.

    `width` is the product of its fixed dims, without the batch's; `open_ended` says that a dim is
    free, so that any number of values is one row.
    """

    name: str
    kind: str  # STRING, BOOL, INT32, UINT64, FP32, ...
    width: int
    open_ended: bool
    batched: bool
    dims: tuple[int, ...] = (1,)  # of one row; -1: any

    @classmethod
    def of(cls, tensor: dict[str, Any], batched: bool) -> "Field":
        """From an input of Triton's configuration."""
        dims = [int(dim) for dim in tensor["dims"]]
        return cls(
            tensor["name"],
            tensor["data_type"].removeprefix("TYPE_"),
            math.prod(dim for dim in dims if dim > 0),
            any(dim < 0 for dim in dims),
            batched,
            tuple(dims),
        )

    def one_list(self, value: Any) -> Any:
        """Lists of lists as the one list that Triton takes; every other value as it is.

        Triton has no place for their shape: it fills the free dim, and of two the last one.
        Raises Refusal for lists that have no such shape.
        """
        nested = isinstance(value, list) and any(isinstance(item, list) for item in value)
        if not nested or len(self.dims) < 2 or not self._known:
            return value
        rows = value[0] if self._is_batch_of_one(value) else value
        free = self.dims.count(-1) > 1
        for dim in self.dims[1:]:
            lengths = {len(row) if isinstance(row, list) else -1 for row in rows}
            if len(lengths) != 1 or lengths & {-1, 0} or (dim > 0 and lengths != {dim}):
                raise self._wrong(f"the lists in it {self._wanted(dim)}")
            if free and len(rows) > 1:
                raise self._wrong(
                    f"{len(rows)} rows cannot be sent as JSON, in which Triton takes them for one;"
                    " send them as binary data, by gRPC"
                )
            rows = [item for row in rows for item in row]
        return rows

    def _is_batch_of_one(self, value: list[Any]) -> bool:
        """Whether lists go a level deeper than a row does."""
        depth, inner = 0, value
        while isinstance(inner, list) and inner and depth <= len(self.dims):
            depth, inner = depth + 1, inner[0]
        return self.batched and len(value) == 1 and depth > len(self.dims)

    @staticmethod
    def _wanted(dim: int) -> str:
        if dim > 0:
            return f"are not of {dim} values each; send {dim} in each"
        return "are not of one length; send as many values in each"

    @property
    def _known(self) -> bool:
        """Whether values of its kind can be written in JSON."""
        return self.kind in WANTED or self.kind in INTEGERS or self.kind in FLOATS

    def rows(self, value: Any, escaped: bool) -> int:
        """How many prompts the value is for. Raises Refusal that names the field.

        `escaped`: there are escapes in the text, of which not every one is a character.
        """
        if not self._known:
            raise self._wrong(f"{self.kind} cannot be sent over HTTP; send it by gRPC")
        values = value if isinstance(value, list) else [value]
        for item in values:
            self._check(item, escaped)
        return self._rows(len(values))

    def _rows(self, count: int) -> int:
        if count == 0:
            raise self._wrong("the list is empty; leave the field out")
        if self.open_ended:
            if count % self.width:
                raise self._wrong(f"{count} values; send a multiple of {self.width}")
            return 1
        rows, rest = divmod(count, self.width)
        if rest or (rows > 1 and not self.batched):
            raise self._wrong(f"{count} values; send {self.width}")
        return rows

    def _check(self, item: Any, escaped: bool) -> None:
        if isinstance(item, list):
            raise self._wrong("lists in a list are not understood; send one list of values")
        if self.kind == "STRING":
            if not isinstance(item, str):
                raise self._unwanted(item)
            if escaped:
                _check_escapes(self, item)
        elif self.kind == "BOOL":
            if not isinstance(item, bool):
                raise self._unwanted(item)
        elif self.kind in INTEGERS:
            low, high = INTEGERS[self.kind]
            if isinstance(item, bool) or not isinstance(item, int):
                raise self._unwanted(item)
            if not low <= item <= high:
                raise self._wrong(f"{_as_json(item)} is out of range; send {low} to {high}")
        else:
            self._check_float(item)

    def _check_float(self, item: Any) -> None:
        if isinstance(item, bool) or not isinstance(item, int | float):
            raise self._unwanted(item)
        try:
            finite = math.isfinite(
                struct.unpack(code := FLOATS[self.kind], struct.pack(code, item))[0]
            )
        except (OverflowError, struct.error):
            finite = False
        if not finite:
            raise self._wrong(
                f"{_as_json(item)} is out of range of {self.kind}; send a number in it"
            )

    def _unwanted(self, item: Any) -> Refusal:
        if self.name == STOP and isinstance(item, str):  # what other servers call stop words
            return self._wrong(f"{_as_json(item)} is not true or false; did you mean stop_words?")
        wanted = WANTED.get(self.kind, "a number" if self.kind in FLOATS else "a whole number")
        return self._wrong(
            f"{_as_json(item)} is not {wanted}; send {wanted}, or leave the field out"
        )

    def _wrong(self, what: str) -> Refusal:
        return Refusal(400, f"{self.name}: {what}")


def _check_escapes(field: Field, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refusal(400, half_a_pair(field.name, text, error.start)) from error


def half_a_pair(name: str, text: str, at: int) -> str:
    """Why a text with a lone surrogate is rejected."""
    return (
        f"{name}: \\u{ord(text[at]):04x} at character {at} is half of a surrogate pair; send both"
        " halves, or the character itself"
    )


def _as_json(value: Any) -> str:
    """A value of JSON, if it is short."""
    names = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return names[value]
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, int) and abs(value) >= 10**SHOWN:
        return "a larger number"
    return shown(f'"{value[:SHOWN]}"' if isinstance(value, str) else str(value))

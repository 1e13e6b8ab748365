# SPDX-License-Identifier: Apache-2.0
"""Panics of libraries written in Rust, as errors.

A tokenizer's library that meets what it did not foresee panics, and pyo3 raises that as a
`PanicException`: no Exception but a BaseException, as a sign to stop is. What looks after one
request among many would not see it, and all of them would fail, or wait for ever.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from trellis.errors import TrellisError, one_line

P = ParamSpec("P")
R = TypeVar("R")


class Panicked(TrellisError, RuntimeError):
    """A library panicked; the message is the panic's."""


def is_panic(error: BaseException) -> bool:
    """Whether it is a panic; every library has a class of its own, which cannot be imported."""
    kind = type(error)
    return (kind.__module__, kind.__name__) == ("pyo3_runtime", "PanicException")


def guarded(function: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
    """What a function gives. Raises Panicked for a panic, and whatever else it raises."""
    try:
        return function(*arguments, **options)
    except BaseException as error:
        if not is_panic(error):
            raise
        raise Panicked(f"the tokenizer's library panicked: {one_line(error)}") from error

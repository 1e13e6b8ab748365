# SPDX-License-Identifier: Apache-2.0
"""Hooks: what a user's own file does with the text of prompts and of answers.

`make repo HOOKS=my.py` copies that file into each model's version folder. `preprocessing` and
`postprocessing` run it, and the HTTP gateway in their place. It has one or more of these names:

    def prompt(text: str) -> str      a prompt's text, before it is encoded
    def answer(text: str) -> str      the whole text of an answer; streams are rejected
    class Answer                      instead of `answer`, of streams, too: one a sequence
        def push(self, text: str) -> str    the text of a chunk
        def end(self) -> str                what is left; may be missing
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trellis.errors import TrellisError

FILE = Path("trellis", "data", "hooks.py")  # in a model's version folder
NAME = FILE.name
PROMPT, WHOLE, CHUNKS = "prompt", "answer", "Answer"
WHOLE_ONLY = (
    f"stream: {NAME} has answer(text), which needs the whole text; send stream: false, or give it"
    " a class Answer with push(text) and end()"
)


class HookError(TrellisError, RuntimeError):
    """A file of hooks that cannot be used, or a hook that failed; the message names it."""


class AnswerHook:
    """One sequence of an answer on its way through the user's class or function."""

    __slots__ = ("_answer", "_new")

    def __init__(self, new: Callable[[], Any]) -> None:
        """`new`: makes what has `push`, and perhaps `end`; called with the first text."""
        self._new = new
        self._answer: Any = None

    def push(self, text: str) -> str:
        """The text that comes of a chunk's. Raises HookError."""
        if self._answer is None:
            try:
                self._answer = self._new()
            except (Exception, SystemExit) as error:
                raise _raised(CHUNKS, error) from error
        return called(f"{CHUNKS}.push", self._answer.push, text)

    def end(self) -> str:
        """What is left at the end. Raises HookError."""
        end = getattr(self._answer, "end", None)
        return "" if end is None else called(f"{CHUNKS}.end", end)


class WholeAnswerHook(AnswerHook):
    """The same for a function: it keeps the text until it is whole."""

    __slots__ = ("_function", "_texts")

    def __init__(self, function: Callable[[str], str]) -> None:
        self._function = function
        self._texts: list[str] = []

    def push(self, text: str) -> str:
        """Nothing yet."""
        self._texts.append(text)
        return ""

    def end(self) -> str:
        """What the function makes of the whole. Raises HookError."""
        return called(WHOLE, self._function, "".join(self._texts))


@dataclass(frozen=True)
class Hooks:
    """The hooks of a model; none by default."""

    prompt: Callable[[str], str] | None = None
    """Text to text. Raises HookError."""
    new_answer: Callable[[], AnswerHook] | None = None
    """Makes what the text of one sequence of an answer goes through."""
    whole_only: bool = False
    """Whether it needs a text that is whole."""
    has_end: bool = False
    """Whether it must be told which chunk is the last."""

    def no_streams(self, engine: str = "") -> str:
        """Why a request cannot stream, beginning with `stream:`; '' if it can.

        `engine`: the one behind, if it does not say which chunk is a stream's last.
        """
        if self.whole_only:
            return WHOLE_ONLY
        if self.has_end and engine:
            return (
                f"stream: {NAME} has Answer.end(), and this engine ({engine}) does not say which"
                " chunk is the last; send stream: false, or leave end() out of the class"
            )
        return ""


def load_hooks(version: Path) -> Hooks:
    """The hooks in a model's version folder. Raises HookError for a file that cannot be used."""
    file = version / FILE
    if not file.is_file():
        return Hooks()
    from trellis.tokenizers.registry import load_file

    try:
        module = load_file(file, "trellis_hooks")
    except (Exception, SystemExit) as error:
        raise HookError(f"{NAME}: cannot be imported: {_named(error)}") from error
    names = {name for name in (PROMPT, WHOLE, CHUNKS) if hasattr(module, name)}
    _check_names(NAME, names)
    for name in names:
        if not callable(getattr(module, name)):
            raise HookError(f"{NAME}: {name} cannot be called")
    prompt, whole, chunks = (getattr(module, name, None) for name in (PROMPT, WHOLE, CHUNKS))
    edit = None if prompt is None else lambda text: called(PROMPT, prompt, text)
    if whole is not None:
        return Hooks(edit, lambda: WholeAnswerHook(whole), whole_only=True)
    if chunks is None:
        return Hooks(edit)
    if not callable(getattr(chunks, "push", None)):
        raise HookError(f"{NAME}: {CHUNKS} has no push(text)")
    return Hooks(edit, lambda: AnswerHook(chunks), has_end=hasattr(chunks, "end"))


def check_file(file: Path) -> None:
    """Raise HookError for a file without hooks, or that is no Python. It is not run."""
    try:
        names = set(_bound(ast.parse(file.read_bytes(), str(file)).body))
    except OSError as error:
        raise HookError(f"HOOKS={file}: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        raise HookError(f"HOOKS={file}: {error}") from error
    _check_names(f"HOOKS={file}", names & {PROMPT, WHOLE, CHUNKS})


def needs_whole_answers(version: Path) -> bool:
    """Whether the hooks in a model's version folder cannot stream; they are not run."""
    file = version / FILE
    if not file.is_file():
        return False
    return WHOLE in set(_bound(ast.parse(file.read_bytes(), str(file)).body))


def called(name: str, function: Callable[..., Any], *values: str) -> str:
    """What a hook returns. Raises HookError where it raises, or returns no text."""
    try:
        text = function(*values)
    except (Exception, SystemExit) as error:
        raise _raised(name, error) from error
    if not isinstance(text, str):
        raise HookError(f"{NAME}: {name} returned {type(text).__name__}; return str")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise HookError(f"{NAME}: {name} returned what is no UTF-8: {error.reason}") from error
    return text


def _raised(name: str, error: BaseException) -> HookError:
    return HookError(f"{NAME}: {name} raised {_named(error)}")


def _named(error: BaseException) -> str:
    """An error as Python writes it.

    >>> _named(KeyError("x")), _named(ValueError())
    ("KeyError: 'x'", 'ValueError')
    """
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    return text.encode("utf-8", "replace").decode()  # Triton takes no lone surrogates


def _check_names(file: str, names: set[str]) -> None:
    if not names:
        raise HookError(f"{file}: needs prompt(text), and answer(text) or a class Answer, or one")
    if {WHOLE, CHUNKS} <= names:
        raise HookError(f"{file}: has answer(text) and a class Answer; leave one out")


def _bound(body: list[ast.stmt]) -> Iterator[str]:
    """The names that statements of a module bind; not those in functions and classes."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        else:
            named = (each for each in ast.walk(node) if isinstance(each, ast.Name))
            yield from (each.id for each in named if isinstance(each.ctx, ast.Store))
            for part in ("body", "orelse", "handlers", "finalbody"):
                yield from _bound(getattr(node, part, []))

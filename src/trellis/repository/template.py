# SPDX-License-Identifier: Apache-2.0
r"""Filling `${...}` placeholders: nothing mistyped, nothing forgotten, nothing unparsable.

>>> parse_substitutions(r"engine_dir:/a\:b,max_beam_width:")
{'engine_dir': '/a:b', 'max_beam_width': ''}
"""

import difflib
import re
from collections.abc import Iterable, Mapping

from trellis.contract.placeholder import Placeholder, PlaceholderError, known_placeholders
from trellis.errors import TrellisError
from trellis.repository.model_config import parse_config

PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
# At the end, or before a letter or digit: what comes of it is never what was meant.
LONE_BACKSLASH = re.compile(r"(?<!\\)(?:\\\\)*\\(?:$|\w)")


class TemplateError(TrellisError, ValueError):
    """A template that cannot be filled as asked; the message names the key and the remedy."""


def split_escaped(text: str, delimiter: str, most: int = 0) -> list[str]:
    r"""Split at a delimiter that no backslash stands before; `most` times, 0 for always.

    >>> split_escaped(r"a\,b,c", ",")
    ['a\\,b', 'c']
    """
    parts: list[str] = []
    start = 0
    for match in re.finditer(rf"\\.|{re.escape(delimiter)}", text, re.DOTALL):
        if match[0] == delimiter and not (most and len(parts) == most):
            parts.append(text[start : match.start()])
            start = match.end()
    return [*parts, text[start:]]


def parse_substitutions(text: str) -> dict[str, str]:
    """`key:value,key:value` to a dict.

    Raises TemplateError for an entry without a colon, a key given twice, and a backslash that
    stands before nothing that needs one.
    """
    values: dict[str, str] = {}
    before = ""
    for entry in filter(str.strip, split_escaped(text, ",")):
        if LONE_BACKSLASH.search(entry):
            raise TemplateError(
                f"{entry}: a lone backslash; write \\\\ for a backslash, and \\, or \\: for a comma"
                " or colon in a value (in quotes: a shell takes one backslash away)"
            )
        key, *rest = split_escaped(entry, ":", most=1)
        key = _unescape(key).strip()
        if not rest:
            raise TemplateError(_without_value(entry, before))
        before = entry
        if key in values:
            raise TemplateError(f"{key} is given twice; give it once")
        values[key] = _unescape(rest[0])
    return values


def _without_value(entry: str, before: str) -> str:
    """What to say of `1` in `gpu_device_ids:0,1`."""
    other = f", or '{before}\\,{entry}' if that comma is part of a value" if before else ""
    return f"{entry!r} has no value; write {entry}:value{other}"


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def placeholders_in(text: str) -> list[str]:
    """The names in a template, each once, in order; those in comments do not count."""
    code = "\n".join(line for line in text.splitlines() if not _comment(line))
    return list(dict.fromkeys(PLACEHOLDER.findall(code)))


def fill(
    text: str,
    values: Mapping[str, str],
    name: str = "config.pbtxt",
    allow_unfilled: bool = False,
) -> str:
    """Fill a template and check the result as Triton would read it.

    Raises TemplateError for a key that the template does not have, a value of the wrong type and
    a placeholder without value or default; ConfigTextError for a result that does not parse.
    """
    present = placeholders_in(text)
    for key in values:
        if key not in present:
            raise TemplateError(f"{name}: {unknown_key(key, present)}")
    chosen = {key: _value(key, values, name, allow_unfilled) for key in present}
    filled = "".join(
        line if _comment(line) else PLACEHOLDER.sub(lambda match: chosen[match[1]], line)
        for line in text.splitlines(keepends=True)
    )
    unfilled = placeholders_in(filled)
    if unfilled and not allow_unfilled:
        raise TemplateError(f"{name}: no value for {', '.join(unfilled)}; add {unfilled[0]}:value")
    if not unfilled:
        parse_config(filled, name)
    return filled


def unknown_key(key: str, present: Iterable[str]) -> str:
    """What to say of a key that is not there: the nearest one, or all."""
    present = sorted(present)
    there = f"it has: {', '.join(present) or 'none'}"
    if key in known_placeholders():
        return f"{key} is no placeholder of this file, but of another model's; {there}"
    near = difflib.get_close_matches(key, present, n=1)
    if near:
        return f"no placeholder {key}; did you mean {near[0]}?"
    return f"no placeholder {key}; {there}"


def _value(key: str, values: Mapping[str, str], name: str, allow_unfilled: bool) -> str:
    """What goes in for one placeholder; itself, where there is nothing."""
    spec = known_placeholders().get(key, Placeholder(key, "text", None, "has no default"))
    if key not in values and (allow_unfilled or spec.default is None):
        return f"${{{key}}}"
    try:
        return _escape(spec.check(values.get(key, "")))
    except PlaceholderError as error:
        raise TemplateError(f"{name}: {error}") from error


def _escape(value: str) -> str:
    """As it stands between the quotes of a text-format string."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _comment(line: str) -> bool:
    return line.lstrip().startswith("#")

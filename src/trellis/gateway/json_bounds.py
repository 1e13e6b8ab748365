# SPDX-License-Identifier: Apache-2.0
"""How deep, how long and how wide JSON is, found without parsing it.

Parsers are linear at best: Python's takes 50 ms a megabyte of numbers, Triton's is quadratic in
keys and ends its server at a million brackets.
"""

import re

from trellis.gateway.limits import Limits
from trellis.gateway.refusals import Refusal

# One that is not closed goes to the end: every quote begins a match, so that no part is read twice.
STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
ALL = bytes(range(256))
AS_LISTS = bytes.maketrans(b"{}", b"[]")
BRACKETS = bytes(set(ALL) - set(b"[]{}"))  # all but these


def check_bounds(body: bytes, limits: Limits, context: int = 0) -> None:
    """Raise Refusal for JSON that is too much to parse.

    `context`: tokens of the engine's, where a body may have a prompt's ids.
    """
    most = limits.items_limit(context)
    opened = body.count(b"{") + body.count(b"[")
    # Each key but an object's first follows a comma.
    if opened <= limits.json_depth and body.count(b",") + opened <= min(limits.json_keys, most):
        return  # even if all of it stood outside of strings
    rest = STRINGS.sub(b"", body)
    if rest.count(b"{") + rest.count(b"[") > limits.json_depth and _deeper(rest, limits.json_depth):
        raise Refusal(
            400, f"the body is nested too deeply; send at most {limits.json_depth} levels"
        )

    keys, items = rest.count(b":"), rest.count(b",")
    if keys > limits.json_keys:
        raise Refusal(400, f"the body has {keys} keys; send at most {limits.json_keys}")
    if items > most:
        raise Refusal(400, f"the body has {items} values; send at most {most}")


def _deeper(rest: bytes, most: int) -> bool:
    """Whether brackets stand in each other deeper than that, or do not match."""
    brackets = rest.translate(AS_LISTS, BRACKETS)
    for _ in range(most):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")  # the innermost level, and no other
    return bool(brackets)

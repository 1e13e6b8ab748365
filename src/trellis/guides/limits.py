# SPDX-License-Identifier: Apache-2.0
"""How large a guide may be, and the errors that guides are rejected with.

docs/structured_output.md says what a client gets at each limit.
"""

import json
import re

from trellis.contract.client_inputs import GUIDE
from trellis.errors import RequestError

GUIDE_BYTES = 65_536  # of UTF-8, as a client sends it
GUIDE_DEPTH = 64  # JSON inside JSON, groups inside groups
GUIDE_PARTS = 2_000  # schemas in a schema, after $ref and allOf are put together
GUIDE_TIMES = 100_000  # of a repetition, and what a schema counts
# An upper bound from here on is none: no answer has so many characters, and generators of schemas
# write what their integers hold.
ENDLESS = 1_000_000_000
GUIDE_ELEMENTS = 10_000  # of the grammar that it becomes
GUIDE_SECONDS = 10.0  # until an engine's library has compiled it
KEPT_ELEMENTS = 500_000  # of all guides that a library keeps, of at most 3 KB each


SHOWN = 200  # characters of a place
_PLAIN = re.compile(r"[A-Za-z0-9_$-]+")


def below(place: str, name: str) -> str:
    """The place of what is under a name.

    >>> below("$.properties", "a.b")
    '$.properties["a.b"]'
    """
    return f"{place}.{name}" if _PLAIN.fullmatch(name) else f"{place}[{json.dumps(name)}]"


def refused(place: str, why: str) -> RequestError:
    """The error for a part of a guide; `place` as `$.properties.a`."""
    shown = place if len(place) <= SHOWN else place[: SHOWN - 3] + "..."
    return RequestError(f"{GUIDE}: {shown}: {why}")


def refused_by(why: str) -> RequestError:
    """The error for a guide as a whole."""
    return RequestError(f"{GUIDE}: {why}")

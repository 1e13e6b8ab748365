# SPDX-License-Identifier: Apache-2.0
"""The id of a request: for its line in the log, and for whoever traces it."""

import secrets
from collections.abc import MutableMapping
from typing import Any


def request_id(scope: MutableMapping[str, Any]) -> str:
    """That of `scope`, which keeps it under `state`; made where there is none yet."""
    state = scope.setdefault("state", {})
    found: str = state.setdefault("request_id", secrets.token_hex(16))
    return found

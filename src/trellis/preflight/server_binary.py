# SPDX-License-Identifier: Apache-2.0
"""The server itself: whether one can be started here."""

from trellis.preflight.check import Check
from trellis.server.triton import TritonNotFound, find_triton


def check_server(given: str = "") -> Check:
    """A tritonserver is found, with what it needs to run."""
    needed = "a tritonserver that runs here"
    try:
        return Check("server", str(find_triton(given).binary), needed, True)
    except TritonNotFound as error:
        cause, _, remedy = str(error).partition("; ")
        return Check("server", cause, needed, False, remedy or "`make setup`")

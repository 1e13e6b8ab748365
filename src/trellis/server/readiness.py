# SPDX-License-Identifier: Apache-2.0
"""Waiting for readiness where a person watches: which models are loaded, and for how long."""

from collections.abc import Callable

from rich.console import Console

from trellis.server.process import Server


def wait_quietly(server: Server, stopped: Callable[[], bool]) -> float | None:
    """The same where the server's own log is shown, which says what is loaded."""

    def look(_: float) -> None:
        if stopped():
            raise _Stopped

    try:
        return server.wait_ready(look)
    except _Stopped:
        return None


class _Stopped(Exception):
    """The user wants to stop before the server is ready."""


def wait_with_progress(
    server: Server, console: Console, stopped: Callable[[], bool] = lambda: False
) -> float | None:
    """Seconds until ready, or None if `stopped()` first. Raises ServerFailed as wait_ready does.

    For a server whose own log goes elsewhere: between its lines a spinner would be in the way.
    """
    with console.status("starting tritonserver") as status:

        def show(seconds: float) -> None:
            if stopped():
                raise _Stopped
            if round(seconds, 1) % 1 == 0:
                models = server.models_ready()
                states = " ".join(
                    f"[green]{name}[/]" if ready else f"[dim]{name}[/]"
                    for name, ready in models.items()
                )
                status.update(f"loading models ({seconds:.0f} s): {states}")

        try:
            return server.wait_ready(show)
        except _Stopped:
            return None

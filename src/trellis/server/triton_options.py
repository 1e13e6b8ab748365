# SPDX-License-Identifier: Apache-2.0
"""Options of tritonserver itself, passed on as they are, but for those that the launcher sets."""

from collections.abc import Sequence

from trellis.errors import TrellisError

# tritonserver's option -> the launcher's that sets it.
OWN = {
    "model-repository": "--model_repo",
    "model-store": "--model_repo",
    "http-port": "--http_port",
    "http-address": "--address",
    "grpc-port": "--grpc_port",
    "grpc-address": "--grpc_address",
    "metrics-port": "--metrics_port",
    "metrics-address": "--metrics_address",
    "exit-timeout-secs": "--exit_timeout",
    "log-file": "--log --log-file",
}


class ExtraOptionError(TrellisError, ValueError):
    """An option that cannot be passed on; the message names the launcher's own."""


def check_extra(options: Sequence[str]) -> None:
    """Raise ExtraOptionError for what is no option, and for one that the launcher sets itself.

    >>> check_extra(["--log-info=0", "--rate-limit", "off"])
    """
    if options and not options[0].startswith("--"):
        raise ExtraOptionError(
            f"{options[0]}: no option; tritonserver's own come after --, as in -- --log-info=0"
        )
    for option in options:
        name = option.removeprefix("--").partition("=")[0].replace("_", "-")
        if option.startswith("--") and name in OWN:
            raise ExtraOptionError(f"--{name}: the launcher sets it; use {OWN[name]}")

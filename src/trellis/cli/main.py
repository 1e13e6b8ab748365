# SPDX-License-Identifier: Apache-2.0
"""The command `trellis`: one subcommand a tool, imported when it is asked for."""

import importlib
import sys

from trellis import __version__
from trellis.cli.run import run

# Subcommand -> what `trellis --help` says of it; its module has the name, with _ for -.
COMMANDS = {
    "repo": "make a model repository from an engine and a tokenizer",
    "check": "say whether a repository will run here",
    "launch": "launch a repository and stay with it",
    "keys": "make, list and remove API keys",
    "ask": "ask the ensemble over gRPC or HTTPS",
    "demo": "a real model answers through a real Triton",
    "fill": "fill in the placeholders of a config.pbtxt",
    "engine": "the container command that builds an engine",
    "serve-docker": "the container command that serves a repository",
    "soak": "mixed traffic with every text checked",
}
USAGE = "usage: trellis COMMAND [OPTIONS]; trellis COMMAND --help; trellis --version"


def main() -> None:
    """Run the subcommand that the command line names; exits with its status, 1 for no such one."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(_help())
    elif name == "--version":
        print(f"trellis {__version__}")
    elif name not in COMMANDS:
        sys.exit(f"trellis: no command {name!r}\n{_help()}")
    else:
        sys.argv = [f"trellis {name}", *arguments]
        run(importlib.import_module(f"trellis.cli.{name.replace('-', '_')}").main)


def _help() -> str:
    lines = [f"  {name:14}{text}" for name, text in COMMANDS.items()]
    return "\n".join([USAGE, "", *lines])

"""A stand-in for NVIDIA's `tensorrtllm` Triton backend: scripted tokens, no model, no GPU.

For tests and benchmarks only; it says so in the server's log. `build_standin` compiles it with
gcc into a backend folder, `write_contract` and `write_scripts` make the files its parameters
name, `read_journal` reads back what it was sent. README.md has the parameters and formats.
"""

from .build import StandinBuildError, build_standin
from .files import Script, read_journal, write_contract, write_scripts

__all__ = [
    "Script",
    "StandinBuildError",
    "build_standin",
    "read_journal",
    "write_contract",
    "write_scripts",
]

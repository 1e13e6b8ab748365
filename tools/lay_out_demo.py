# SPDX-License-Identifier: Apache-2.0
"""Lay out the demo engine and its tokenizer: lay_out_demo.py smollm2-out smollm2-tokenizer."""

import _venv  # noqa: F401  (first: it may go on in .venv)

from trellis.cli.lay_out_demo import main
from trellis.cli.run import run

if __name__ == "__main__":
    run(main)

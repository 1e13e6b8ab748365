# SPDX-License-Identifier: Apache-2.0
"""Ask the ensemble over gRPC: client.py "The capital of France is" --max_tokens 20 --top_p 0.9."""

import _venv  # noqa: F401  (first: it may go on in .venv)

from trellis.cli.ask import main

if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Loads the adapter of an embedding model: trellis/triton_models/embedding.py in this folder."""

import sys
from pathlib import Path

# The embedded interpreter searches site-packages before this folder: the copy made here wins.
sys.path.insert(0, str(Path(__file__).parent))

from trellis.triton_models.embedding import TritonPythonModel

__all__ = ["TritonPythonModel"]

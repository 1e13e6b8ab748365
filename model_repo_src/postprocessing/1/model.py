# SPDX-License-Identifier: Apache-2.0
"""Loads the adapter of `postprocessing`: trellis/triton_models/postprocessing.py in this folder."""

import sys
from pathlib import Path

# The embedded interpreter searches site-packages before this folder: the copy made here wins.
sys.path.insert(0, str(Path(__file__).parent))

from trellis.triton_models.postprocessing import TritonPythonModel

__all__ = ["TritonPythonModel"]

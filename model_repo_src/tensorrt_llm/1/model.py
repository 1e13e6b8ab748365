# SPDX-License-Identifier: Apache-2.0
"""Loads the adapter of `tensorrt_llm`: trellis/triton_models/tensorrt_llm.py in this folder."""

import sys
from pathlib import Path

# The embedded interpreter searches site-packages before this folder: the copy made here wins.
sys.path.insert(0, str(Path(__file__).parent))

from trellis.triton_models.tensorrt_llm import TritonPythonModel

__all__ = ["TritonPythonModel"]

"""Stands in for the module that only Triton's stub has."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import fake_triton

fake_triton.install()

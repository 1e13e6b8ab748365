"""Where the parts of this checkout that the benchmark uses are: import this before them."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Never benchmarks/ itself: its tokenizers.py would shadow Hugging Face's package of that name.
sys.path[1:1] = [str(ROOT / "tests")]

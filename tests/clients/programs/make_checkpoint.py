"""PYTHONPATH=tests:src python make_checkpoint.py FOLDER: SmolLM2 as a checkpoint for vLLM."""

import sys
from pathlib import Path

from ranks.checkpoints import dequantise
from trellis.demo.engine import find_demo_model

folder = Path(sys.argv[1])
dequantise(find_demo_model(), folder)
(folder / "engine.yaml").write_text("enforce_eager: true\n")  # compiling takes minutes

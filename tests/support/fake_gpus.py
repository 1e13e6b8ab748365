"""A machine with GPUs: an `nvidia-smi` that says so."""

import os
from pathlib import Path

GIB = 1024  # nvidia-smi counts MiB


def fake_gpus(folder: Path, *sizes: float, used: float = 0) -> dict[str, str]:
    """An environment with GPUs of so many GiB each, of which so much is in use."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    lines = "".join(f"echo 'A GPU, {size * GIB:.0f}, {used * GIB:.0f}'\n" for size in sizes)
    (tools / "nvidia-smi").write_text("#!/bin/sh\n" + lines)
    (tools / "nvidia-smi").chmod(0o755)
    return {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""}

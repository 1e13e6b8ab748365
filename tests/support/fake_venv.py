# SPDX-License-Identifier: Apache-2.0
"""A venv with this one's packages and the fake of `tensorrt_llm`.

Triton's stub heeds no PYTHONPATH.

python -m support.fake_venv FOLDER    prints the path of its Python
"""

import subprocess
import sys
from pathlib import Path

from support.fake_library import FAKE
from support.paths import ROOT


def make_venv(folder: Path) -> str:
    """Make it in `folder`; the path of its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python3.*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    lines = [str(FAKE), str(ROOT / "src"), *(f"import site; site.addsitedir({p!r})" for p in ours)]
    (packages / "fake_tensorrt_llm.pth").write_text("\n".join(lines) + "\n")
    return str(folder / "bin" / "python")


if __name__ == "__main__":
    print(make_venv(Path(sys.argv[1])))

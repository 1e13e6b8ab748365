# SPDX-License-Identifier: Apache-2.0
"""Where a library puts sockets and files that it leaves when it is killed: in the server's folder.

vLLM has seven sockets in the temporary directory. The launcher removes its folder at the end,
however that came.
"""

import os
import tempfile
from pathlib import Path

FOLDER = "TRELLIS_FOLDER"  # the server's, where a launcher started it


def use_server_folder() -> None:
    """Make it the temporary directory of this process and of those that it starts.

    What torch compiled stays where it was, for the next server.
    """
    folder = os.environ.get(FOLDER, "")
    if not folder or not os.access(folder, os.W_OK):
        return
    compiled = Path(tempfile.gettempdir(), f"torchinductor_{os.getuid()}")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compiled))
    os.environ["TMPDIR"] = tempfile.tempdir = folder

"""python openai_frontend.py BACKENDS MAIN OPTIONS...: the frontend's own MAIN, unchanged.

Its server looks for backends in /opt/tritonserver, where a container has them; BACKENDS is where
they are here.
"""

import functools
import runpy
import sys
from pathlib import Path

import tritonserver

backends, main = sys.argv[1:3]
tritonserver.Server = functools.partial(tritonserver.Server, backend_directory=backends)
sys.argv = sys.argv[2:]
sys.path.insert(0, str(Path(main).parent))
runpy.run_path(main, run_name="__main__")

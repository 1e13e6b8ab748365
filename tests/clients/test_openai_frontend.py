"""Triton's OpenAI frontend, unchanged, serving an assembled repository in its own process.

Its `tritonserver` comes in no package: it is built here from the source of Triton's core, with the
library of the Triton that Trellis serves with.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from clients.client_runs import CLIENTS, PROGRAMS, PROMPT, TOKENS, ask, curl, run, sources, venv
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble
from trellis.server.ports import free_ports
from trellis.server.settings import ServerSettings
from trellis.server.triton import Triton, find_triton

READY_SECONDS = 180  # on a busy machine
# PROMPT as the demo model's own chat template writes it.
CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    f"<|im_end|>\n<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.fixture(scope="session")
def triton() -> Triton:
    found = find_triton()
    if found.site_packages is None:
        pytest.skip("a Triton of a container brings bindings of its own")
    return found


@pytest.fixture(scope="session")
def bindings(triton: Triton) -> Path:
    """The folder of the module `tritonserver`, compiled once."""
    core = sources("core")
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to build Triton's Python bindings with")
    target = CLIENTS / "bindings"
    library = target / "tritonserver" / "_c" / "triton_bindings.so"
    if library.is_file():
        return target
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(core / "python" / "tritonserver", target / "tritonserver")
    includes = run([venv("venv-openai"), "-m", "pybind11", "--includes"]).split()
    libraries = triton.site_packages / "nvidia_pytriton.libs"  # type: ignore[operator]
    (linked,) = libraries.glob("libtritonserver-*.so")
    command = [compiler, "-O0", "-shared", "-fPIC", "-std=c++17", "-fvisibility=hidden"]
    command += [f"-I{core / 'include'}", *includes]
    command += [str(library.with_name("tritonserver_pybind.cc")), "-o", f"{library}.part"]
    command += [f"-L{libraries}", f"-l:{linked.name}", "-Wl,--allow-shlib-undefined"]
    run(command, seconds=300)
    Path(f"{library}.part").rename(library)
    return target


@pytest.fixture(scope="session")
def frontend(
    demo_engine: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
    triton: Triton,
    bindings: Path,
) -> Iterator[str]:
    """The URL of the frontend over a repository as `make repo` makes it."""
    main = sources("server") / "python" / "openai" / "openai_frontend" / "main.py"
    folder = tmp_path_factory.mktemp("openai")
    engine, tokenizer = demo_engine
    assemble(Plan(read_engine(engine), "gpt2", tokenizer), folder / "repo")
    backends = folder / "backends"
    backends.mkdir()
    triton.lay_out_backends(backends)
    (port,) = free_ports(1)
    command = [venv("venv-openai"), str(PROGRAMS / "openai_frontend.py"), str(backends), str(main)]
    command += ["--model-repository", str(folder / "repo"), "--tokenizer", str(tokenizer)]
    command += ["--host", "127.0.0.1", "--openai-port", str(port)]
    environment = {**os.environ, **triton.environment, "PYTHONPATH": str(bindings)}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait_ready(process, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/health/ready", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"the frontend is not ready:\n{log.read_text(errors='replace')[-4000:]}")


@pytest.mark.client("Triton's OpenAI frontend", "in process")
@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_requests_streams_and_usage_of_the_openai_frontend_fit(
    frontend: str, streams: ServerSettings, text: str, model: str
) -> None:
    answer = ask(venv("venv-openai"), "ask_openai.py", frontend, model, PROMPT, str(TOKENS))
    assert model in answer["models"]
    assert answer["text"] == "".join(answer["chunks"]) == text
    for name in ("usage", "chunks_usage"):
        assert counts(answer[name]) == (5, TOKENS, 5 + TOKENS)
    assert answer["echoed"] == PROMPT + text.split("\n")[0]
    assert answer["chat"] == "".join(answer["said"])
    assert answer["chat"] == curl(streams, CHAT, max_tokens=TOKENS)
    assert counts(answer["chat_usage"]) == counts(answer["said_usage"])


def counts(usage: dict[str, int]) -> tuple[int, int, int]:
    """Tokens of the prompt, of the answer, and of both."""
    return usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]

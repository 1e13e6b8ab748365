# SPDX-License-Identifier: Apache-2.0
"""Container commands: building an engine of a release, and serving a repository.

They are text until somebody has Docker and a GPU; `run_or_print` decides. Lengths are in tokens.
"""

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trellis.contract.containers import containers, containers_for, image
from trellis.contract.release import LAST_WITH_ENGINES, has_engines, version_numbers
from trellis.errors import TrellisError
from trellis.preflight.gpus import find_gpus
from trellis.preflight.machine import container_gib

SOURCE = "https://github.com/NVIDIA/TensorRT-LLM"
LIMITS = ("--ulimit", "memlock=-1", "--ulimit", "stack=67108864")

Command = list[str]


class DockerError(TrellisError, ValueError):
    """A command that cannot be made; the message says what to give."""


@dataclass(frozen=True)
class Build:
    """What an engine is built from and for."""

    checkpoint: Path
    out: Path
    dtype: str = "bfloat16"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    max_batch_size: int = 8
    max_input_len: int = 2048
    max_output_len: int = 512
    model: str = "llama"
    source: Path = Path("TensorRT-LLM")  # a checkout of the release, for its examples

    @property
    def world_size(self) -> int:
        """Ranks."""
        return self.tensor_parallel * self.pipeline_parallel


def newest_release() -> str:
    """The TensorRT-LLM of the newest container."""
    return next(iter(containers().values()))


def find_image(release: str, given: str = "") -> str:
    """The container of a release. Raises DockerError where none is known and none is given."""
    if given:
        return given
    fitting = containers_for(release)
    if not fitting:
        raise DockerError(f"TRTLLM={release}: no container with it is known; give IMAGE=")
    return image(fitting[0])


def build_commands(build: Build, release: str, given_image: str = "") -> list[Command]:
    """Get the release's examples if they are not there, then build inside its container.

    Raises DockerError for a release that builds no engines.
    """
    if not has_engines(release):
        raise DockerError(
            f"TRTLLM={release}: TensorRT-LLM builds no engines from 1.3.0rc21 on, so there is"
            f" nothing to build: serve the checkpoint itself, `make repo ENGINE={build.checkpoint}"
            f" BACKEND=llmapi`; or set TRTLLM={LAST_WITH_ENGINES} for an engine of that release"
        )
    numbers = version_numbers(release)
    steps = _build_py(build) if numbers < (0, 8) else _trtllm_build(build, numbers)
    script = " && ".join([_enter_examples(build.model), *map(_line, steps)])
    docker = ["docker", "run", "--rm", "--gpus", "all", "--shm-size=2g", *LIMITS]
    docker += _mount(build.source, "/TensorRT-LLM") + _mount(build.checkpoint, "/checkpoint")
    docker += _mount(build.out, "/engine", writable=True)
    build_it = [*docker, find_image(release, given_image), "bash", "-c", script]
    if build.source.is_dir():
        return [build_it]
    tag = f"v{release}"
    return [["git", "clone", "--depth=1", f"--branch={tag}", SOURCE, str(build.source)], build_it]


def _enter_examples(model: str) -> str:
    """The folder moved between releases; one of the two is there."""
    return f"cd /TensorRT-LLM/examples && cd {model} 2>/dev/null || cd models/core/{model}"


def _build_py(build: Build) -> list[Command]:
    """0.5 to 0.7: one script from checkpoint to engine."""
    command = ["python3", "build.py", "--model_dir=/checkpoint", "--output_dir=/engine"]
    command += [f"--dtype={build.dtype}", f"--use_gpt_attention_plugin={build.dtype}"]
    command += [f"--use_gemm_plugin={build.dtype}", "--remove_input_padding"]
    command += ["--use_inflight_batching", "--paged_kv_cache"]
    command += [f"--world_size={build.world_size}", f"--tp_size={build.tensor_parallel}"]
    command += [f"--pp_size={build.pipeline_parallel}"]
    return [[*command, *_sizes(build), f"--max_output_len={build.max_output_len}"]]


def _trtllm_build(build: Build, release: tuple[int, ...]) -> list[Command]:
    """From 0.8: the checkpoint is converted first; lengths add up to one from 0.11."""
    convert = ["python3", "convert_checkpoint.py", "--model_dir=/checkpoint"]
    convert += ["--output_dir=/converted", f"--dtype={build.dtype}"]
    convert += [f"--tp_size={build.tensor_parallel}", f"--pp_size={build.pipeline_parallel}"]
    command = ["trtllm-build", "--checkpoint_dir=/converted", "--output_dir=/engine"]
    command += [f"--gemm_plugin={build.dtype}", f"--gpt_attention_plugin={build.dtype}"]
    if release < (0, 13):  # after that it is what one gets unasked
        command += ["--remove_input_padding=enable", "--paged_kv_cache=enable"]
    longest = build.max_input_len + build.max_output_len
    old = f"--max_output_len={build.max_output_len}"
    return [
        convert,
        [*command, *_sizes(build), old if release < (0, 11) else f"--max_seq_len={longest}"],
    ]


def _sizes(build: Build) -> Command:
    return [f"--max_batch_size={build.max_batch_size}", f"--max_input_len={build.max_input_len}"]


@dataclass(frozen=True)
class Serving:
    """A repository, where it expects to be, and the ports of this machine."""

    repository: Path
    mount: Path
    base: str  # NVIDIA's container that has the engine
    world_size: int = 1
    address: str = "127.0.0.1"  # of HTTP
    ports: tuple[int, int, int] = (8000, 8001, 8002)
    grpc_address: str = "127.0.0.1"
    metrics_address: str = "127.0.0.1"
    user: str = "1000:1000"  # who can read the repository

    @property
    def image(self) -> str:
        """What deploy/Dockerfile makes of the container: `trellis:26.07-trtllm-python-py3`."""
        name, _, tag = self.base.rpartition("/")[2].partition(":")
        return f"trellis:{tag or name}"


def serve_commands(serving: Serving, checkout: Path) -> list[Command]:
    """Put Trellis into the engine's container, once, and run its launcher there.

    Raises DockerError where deploy/Dockerfile is not at hand.
    """
    dockerfile = checkout / "deploy" / "Dockerfile"
    if not dockerfile.is_file():
        raise DockerError(f"{dockerfile}: not there; run this in a checkout of Trellis")
    build = ["docker", "build", f"--file={dockerfile}", f"--build-arg=BASE={serving.base}"]
    return [[*build, f"--tag={serving.image}", str(checkout)], _run(serving)]


def _run(serving: Serving) -> Command:
    """The launcher listens on all of the container's addresses; `-p` says who gets there."""
    docker = ["docker", "run", "--rm", "--init", "--stop-timeout=30", "--gpus", "all"]
    docker += [
        f"--user={serving.user}",
        f"--shm-size={container_gib(serving.world_size)}g",
        *LIMITS,
    ]
    addresses = (serving.address, serving.grpc_address, serving.metrics_address)
    for address, outside, inside in zip(addresses, serving.ports, (8000, 8001, 8002), strict=True):
        docker += ["-p", f"{address}:{outside}:{inside}"]
    docker += _mount(serving.repository, str(serving.mount))
    launch = [f"--model_repo={serving.mount}", f"--world_size={serving.world_size}"]
    launch += ["--grpc_address=0.0.0.0", "--metrics_address=0.0.0.0"]
    return [*docker, serving.image, *launch]


def run_or_print(commands: Sequence[Command], run: str) -> int:
    """Print the commands; run them if `run` is 1, or is empty where there are Docker and a GPU.

    The exit status of the first that fails, or 0.
    """
    for command in commands:
        print(_lines(command))
    here = shutil.which("docker") is not None and bool(find_gpus())
    if run == "0" or (run != "1" and not here):
        return 0
    for command in commands:
        if shutil.which(command[0]) is None:
            raise DockerError(f"{command[0]} is not installed here; RUN=0 prints without running")
        status = subprocess.run(command, check=False).returncode
        if status:
            return status
    return 0


def _mount(path: Path, inside: str, writable: bool = False) -> Command:
    return ["-v", f"{path.absolute()}:{inside}" + ("" if writable else ":ro")]


def _line(command: Command) -> str:
    return shlex.join(command)


def _lines(command: Command) -> str:
    """To paste: an option a line."""
    text = ""
    for word in command:
        option = text and word.startswith(("-", "nvcr.io/", "trellis:"))
        text += (" \\\n  " if option else " " if text else "") + shlex.quote(word)
    return text

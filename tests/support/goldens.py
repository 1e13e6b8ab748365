"""Texts under golden/ that a reviewer has read.

`PYTHONPATH=tests python -m support.goldens` renews them.
"""

import tempfile
from pathlib import Path

from support.fake_engines import write_checkpoint, write_engine
from support.paths import ROOT
from trellis.contract.containers import vllm_image
from trellis.contract.model_names import served_as
from trellis.docker.commands import (
    Build,
    Command,
    Serving,
    build_commands,
    find_image,
    serve_commands,
)
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.model_configs import model_configs

GOLDEN = ROOT / "tests" / "unit" / "repository" / "golden"
CONFIG_RELEASES = ("0.5.0", "0.9.0", "1.x")
NAME = "qwen"  # of the models that are not alone in their repository
MOUNT = Path("/triton_model_repo")


def golden_texts(folder: Path) -> dict[str, str]:
    """Every text by its path under golden/. `folder` is for scratch."""
    texts: dict[str, str] = {}
    for release in CONFIG_RELEASES:
        engine = read_engine(write_engine(folder / release, release))
        settings = {"kv_cache_free_gpu_mem_fraction": "0.2"}
        configs, _ = model_configs(engine, "llama", settings, MOUNT)
        texts |= {f"{release}/{model}.pbtxt": text for model, text in configs.items()}
    named = {
        "named": read_engine(write_engine(folder / "named", "1.x")),
        "named-vllm": read_engine(write_checkpoint(folder / "named-vllm"), "vllm"),
    }
    for place, engine in named.items():
        configs, _ = model_configs(engine, "llama", {}, MOUNT, NAME)
        texts |= {f"{place}/{served_as(part, NAME)}.pbtxt": text for part, text in configs.items()}
    return texts | {f"docker/{name}.txt": text for name, text in docker_texts().items()}


def docker_texts() -> dict[str, str]:
    """The container commands, with paths that are the same on every machine."""
    checkpoint, out, source = Path("/models/Llama-2-7b-chat-hf"), Path("/llama-out"), Path("/src")
    build = Build(checkpoint, out, "bfloat16", 2, 1, source=source)
    releases = ("0.5.0", "0.9.0", "0.17.0", "1.2.1")
    texts = {f"engine-{name}": build_commands(build, name) for name in releases}
    repository = Path("/srv/triton_model_repo")
    one = Serving(repository, MOUNT, find_image("0.5.0"))
    two = Serving(repository, MOUNT, find_image("0.17.0"), 2, "0.0.0.0", (9000, 9001, 9002))
    vllm = Serving(repository, MOUNT, vllm_image())
    servings = {"0.5.0": one, "0.17.0-2-ranks": two, "vllm": vllm}
    texts |= {f"serve-{name}": _serve_commands(serving) for name, serving in servings.items()}
    return {
        name: "\n".join("\n".join(command) + "\n" for command in commands)
        for name, commands in texts.items()
    }


def _serve_commands(serving: Serving) -> list[Command]:
    checkout = str(ROOT)
    return [
        [word.replace(checkout, "/trellis") for word in command]
        for command in serve_commands(serving, ROOT)
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for name, text in golden_texts(Path(scratch)).items():
            (GOLDEN / name).parent.mkdir(parents=True, exist_ok=True)
            (GOLDEN / name).write_text(text, encoding="utf-8")

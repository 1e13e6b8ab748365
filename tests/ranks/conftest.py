# SPDX-License-Identifier: Apache-2.0
"""What the tests of several ranks share: repositories to serve."""

from pathlib import Path

import pytest

from support.fake_engines import write_engine
from support.standin import Script, write_contract, write_scripts
from support.standin_server import add_parameters, contract_of
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble
from trellis.tokenizers import Tokenizer

RELEASE = "0.17.0"
ANSWER = "Paris is the capital of France."
PROMPT = "The capital of France is"


@pytest.fixture(scope="session")
def random_repo(demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of a small Llama with random weights: 4 attention and 2 key/value heads."""
    pytest.importorskip("vllm", reason="needs vLLM: `make setup-vllm`", exc_type=ImportError)
    from ranks.checkpoints import random_llama

    folder = tmp_path_factory.mktemp("ranks")
    random_llama(folder / "checkpoint", 49152)
    (folder / "checkpoint" / "engine.yaml").write_text("enforce_eager: true\n")
    target = folder / "triton_model_repo"
    settings = {"triton_max_batch_size": "16", "max_tokens_in_paged_kv_cache": "16384"}
    engine = read_engine(folder / "checkpoint", "vllm")
    assemble(Plan(engine, "gpt2", demo_engine[1], settings=settings), target)
    return target


@pytest.fixture(scope="session")
def standin_repo(
    standin_library: Path,
    llama_folder: Path,
    llama: Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A repository of a TensorRT-LLM engine for two ranks, with the stand-in of its backend."""
    folder = tmp_path_factory.mktemp("standin")
    mapping = {"world_size": 2, "tp_size": 2, "pp_size": 1}
    engine = read_engine(write_engine(folder / "llama-out", RELEASE, ranks=2, mapping=mapping))
    target = folder / "triton_model_repo"
    assemble(Plan(engine, "llama", llama_folder), target)
    (target / "tensorrt_llm" / standin_library.name).symlink_to(standin_library)
    script = Script(tuple(llama.encode_fragment(ANSWER)))
    parameters = {
        "contract": str(write_contract(folder / "contract", contract_of(RELEASE))),
        "tokens": str(write_scripts(folder / "scripts", [script])),
        "log": str(folder / "journal"),
        "token_delay_us": "5000",
    }
    add_parameters(target / "tensorrt_llm" / "config.pbtxt", parameters)
    return target

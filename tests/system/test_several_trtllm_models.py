"""Two models of the C++ backend (the stand-in) in one server: each has its own request ids."""

from pathlib import Path

import tritonclient.grpc as triton

from support import serving
from support.fake_engines import write_engine
from support.standin import Script, write_contract, write_scripts
from support.standin_server import add_parameters, contract_of
from trellis.engine_files.engine_folder import read_engine
from trellis.grpc_client import generate, texts
from trellis.repository.assemble import Plan, assemble
from trellis.tokenizers import load

RELEASE = "1.x"
ANSWERS = {"ensemble": "안녕하세요, plain", "qwen": "세계여, named"}


def test_the_same_request_id_in_two_models_is_two_streams(
    tmp_path: Path, standin_library: Path, llama_folder: Path
) -> None:
    engine = read_engine(write_engine(tmp_path / "llama-out", RELEASE))
    repo, encode = tmp_path / "repo", load("llama", llama_folder).encode
    for name, answer in ANSWERS.items():
        assemble(Plan(engine, "llama", llama_folder, name=name), repo)
        model = repo / ("tensorrt_llm" if name == "ensemble" else f"{name}_tensorrt_llm")
        (model / standin_library.name).symlink_to(standin_library)
        (tmp_path / name).mkdir()
        parameters = {
            "contract": str(write_contract(tmp_path / name / "contract", contract_of(RELEASE))),
            "tokens": str(
                write_scripts(tmp_path / name / "scripts", [Script(answer=encode(answer)[1:])])
            ),
            "log": str(tmp_path / name / "journal"),
        }
        add_parameters(model / "config.pbtxt", parameters)
    with serving.serve(repo, tmp_path) as server:
        url = f"127.0.0.1:{server.settings.grpc_port}"
        with triton.InferenceServerClient(url) as one, triton.InferenceServerClient(url) as other:
            clients = {"ensemble": one, "qwen": other}
            streams = {
                name: texts(
                    generate(client, [b"A"], {"stream": True, "max_tokens": 64}, "7", model=name)
                )
                for name, client in clients.items()
            }
            begun = {name: next(stream) for name, stream in streams.items()}  # both in flight
            made = {name: begun[name] + "".join(stream) for name, stream in streams.items()}
    assert made == ANSWERS
    log = (tmp_path / serving.LOG).read_text(errors="replace")
    assert "no notice" not in log

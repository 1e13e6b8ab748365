"""A server of a test's own: the demo engine with other settings than everyone's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble
from trellis.server.ports import free_ports
from trellis.server.process import Server, ServerSettings


@contextmanager
def own_server(
    demo: tuple[Path, Path],
    folder: Path,
    settings: Mapping[str, str],
    hooks: Path | None = None,
) -> Iterator[Server]:
    """Assembled in `folder` from the folders of engine and tokenizer, started, ready."""
    engine, tokenizer = demo
    repo = folder / "triton_model_repo"
    assemble(Plan(read_engine(engine), "gpt2", tokenizer, hooks=hooks, settings=settings), repo)
    log = folder / "triton.log"
    with log.open("wb") as output:
        server = Server(ServerSettings(repo, *free_ports(3)), output)
    with server:
        try:
            server.wait_ready()
        except BaseException:
            print(log.read_text(errors="replace")[-5000:])
            raise
        yield server

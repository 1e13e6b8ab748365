"""The one way in which tests start a server: `serve()`.

    with serve(repo, folder) as server:                      # tritonserver and its gateway
        httpx.get(f"{server.settings.url}/v2/health/ready")
    with serve(repo, folder, launcher=True) as launched:     # the launcher, as a user has it
        httpx.get(f"{launched.url}/v2/health/ready")

Either is ready inside, has free ports, and ends after: beside the next tests (`support.ending`).
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, overload

from support.ending import end_beside
from support.engines import read_demo_engine
from support.launched import Launched
from trellis.demo.repository import PARSER
from trellis.repository.assemble import Plan, assemble
from trellis.repository.parser_formats import find_parser
from trellis.server.ports import free_ports
from trellis.server.process import Server
from trellis.server.restarts import load
from trellis.server.settings import ServerSettings

LOG = "triton.log"  # in the folder that a test gives


@overload
def serve(
    repo: Path,
    folder: Path,
    *,
    launcher: Literal[False] = False,
    ready: bool = True,
    **options: Any,
) -> AbstractContextManager[Server]: ...


@overload
def serve(
    repo: Path,
    folder: Path,
    *arguments: str,
    launcher: Literal[True],
    ready: bool = True,
    around: str = ...,
    ready_seconds: float = ...,
    python: str = ...,
) -> AbstractContextManager[Launched]: ...


def serve(
    repo: Path,
    folder: Path,
    *arguments: str,
    launcher: bool = False,
    ready: bool = True,
    **options: Any,
) -> AbstractContextManager[Any]:
    """A running server of `repo`; what it writes goes into `folder`.

    Args:
        repo: the model repository.
        folder: where the log lies; made if it is not there.
        arguments: more of the launcher's command line.
        launcher: start tools/launch_triton_server.py, not a Server in this process.
        ready: wait until every model is loaded.
        options: fields of ServerSettings; for a launcher `around`, `ready_seconds` and `python`,
            see Launched.
    """
    if launcher:
        return Launched(repo, folder, *arguments, ready=ready, **options)
    return _serve(repo, folder, ready, options)


@contextmanager
def _serve(repo: Path, folder: Path, ready: bool, options: Mapping[str, Any]) -> Iterator[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / LOG
    with log.open("wb") as output:
        server = Server(ServerSettings(repo, *free_ports(3), **options), output)
    try:
        if ready:
            load(server)
        yield server
    except BaseException:
        print(log.read_text(errors="replace")[-6000:])
        raise
    finally:
        end_beside(server.stop)


def assemble_demo(
    demo: tuple[Path, Path],
    folder: Path,
    settings: Mapping[str, str] | None = None,
    hooks: Path | None = None,
) -> Path:
    """A repository in `folder`, of the demo's folders of engine and tokenizer."""
    engine, tokenizer = demo
    repo = folder / "triton_model_repo"
    plan = Plan(
        read_demo_engine(engine),
        "gpt2",
        tokenizer,
        parser=find_parser(PARSER, tokenizer),
        hooks=hooks,
        settings=settings or {},
    )
    assemble(plan, repo)
    return repo


@contextmanager
def serve_demo(
    demo: tuple[Path, Path],
    folder: Path,
    settings: Mapping[str, str] | None = None,
    hooks: Path | None = None,
    **options: Any,
) -> Iterator[Server]:
    """The demo engine with other settings than everyone's, assembled in `folder` and served."""
    with serve(assemble_demo(demo, folder, settings, hooks), folder, **options) as server:
        yield server

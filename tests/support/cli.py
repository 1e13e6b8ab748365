"""The command-line tools, called as a shell would, in this process."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from trellis.cli import check, engine, fill, repo, serve_docker

TOOLS: dict[str, Callable[..., object]] = {
    "assemble": repo.main,
    "check": check.main,
    "fill_template": fill.main,
    "build_engine": engine.main,
    "serve_docker": serve_docker.main,
}


@dataclass(frozen=True)
class Result:
    """How a tool ended, and all that it printed (a table's line breaks among it)."""

    status: int
    output: str


def run(tool: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Result:
    """`run("assemble", "--engine", folder)`; an exception that a user would see is one here."""
    app = typer.Typer(add_completion=False)
    app.command()(TOOLS[tool])
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env=dict(env or {}))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Result(done.exit_code, done.output)


def failing(repository: Path, *arguments: str, env: Mapping[str, str]) -> list[dict[str, Any]]:
    """The checks that fail, as --json has them."""
    done = run("check", "--model_repo", repository, "--json", *arguments, env=env)
    answer = json.loads(done.output)
    assert answer["ok"] is (done.status == 0)
    return [check for check in answer["checks"] if not check["ok"]]

# SPDX-License-Identifier: Apache-2.0
"""Make a model repository: assemble.py --engine llama-out --tokenizer llama (see `make repo`)."""

import sys
from pathlib import Path
from typing import Annotated, get_args

import typer

from trellis.contract.model_names import ENSEMBLE
from trellis.engine_files.engine_folder import CHECKPOINT_ENGINES, EngineFolder, read_engine
from trellis.errors import TrellisError
from trellis.files import CopyMode
from trellis.repository.assemble import AssemblyError, Plan, assemble, find_tokenizer_dir
from trellis.repository.parser_formats import find_parser
from trellis.repository.template import parse_substitutions
from trellis.repository.tokenizer_type import find_type


def main(
    engine: Annotated[Path, typer.Option("--engine", help="folder of the engine")],
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", help="a tokenizer_type, or the path of a file with one")
    ] = "auto",
    tokenizer_dir: Annotated[
        str, typer.Option("--tokenizer_dir", "--tokenizer-dir", help="folder of its files")
    ] = "",
    model_repo: Annotated[
        Path, typer.Option("--model_repo", "--model-repo", help="where to make the repository")
    ] = Path("triton_model_repo"),
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            help="overrides what ENGINE holds: tensorrtllm, openvino, vllm or llmapi",
        ),
    ] = "",
    settings: Annotated[
        str, typer.Option("--set", help="placeholders by hand: key:value,key:value")
    ] = "",
    trtllm: Annotated[
        str, typer.Option("--trtllm", help="TensorRT-LLM release, overrides config.json")
    ] = "",
    engine_copy: Annotated[
        str, typer.Option("--engine_copy", "--engine-copy", help="link, copy or symlink")
    ] = "link",
    mount: Annotated[
        str, typer.Option("--mount", help="absolute path that it will be served from")
    ] = "",
    hooks: Annotated[
        str,
        typer.Option("--hooks", help="a file of your own: prompt(text), answer(text) or Answer"),
    ] = "",
    parser: Annotated[
        str,
        typer.Option(
            "--parser",
            help="formats of tool calls and reasoning: think+hermes, none, the path of a file;"
            " default: by the tokenizer's chat template",
        ),
    ] = "",
    tp: Annotated[
        str, typer.Option("--tp", help="tensor parallel size (engines vllm and llmapi)")
    ] = "",
    pp: Annotated[
        str, typer.Option("--pp", help="pipeline parallel size (engines vllm and llmapi)")
    ] = "",
    replace: Annotated[
        str, typer.Option("--replace", help="1: in the place of another engine's model")
    ] = "",
    name: Annotated[
        str,
        typer.Option("--name", help="of the model, to have several in a repository"),
    ] = "",
) -> None:
    """Assemble a repository that any Triton serves."""
    try:
        tokenizer_type, type_file = find_type(tokenizer)
        given = Path(tokenizer_dir) if tokenizer_dir else None
        found = read_engine(engine, backend, trtllm)
        folder = find_tokenizer_dir(tokenizer_type, engine, given)
        plan = Plan(
            engine=found,
            tokenizer_type=tokenizer_type,
            tokenizer_dir=folder,
            type_file=type_file,
            parser=find_parser(parser, folder),
            hooks=Path(hooks) if hooks else None,
            settings=parse_substitutions(settings) | parallel_sizes(found, tp, pp),
            copy=copy_mode(engine_copy),
            mount=Path(mount) if mount else None,
            replace=replace not in ("", "0"),
            name=name or ENSEMBLE,
        )
        assembly = assemble(plan, model_repo)
    except (OSError, TrellisError) as error:
        print(f"assemble: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    for note in assembly.notes:
        print(f"assemble: {note}", file=sys.stderr)
    state = "ready" if assembly.changed else "unchanged"
    about = f"{name} " if name else ""
    what = plan.engine.trtllm or plan.engine.engine_type
    print(
        f"{model_repo}: {about}{state} (engine {engine}: {what}; tokenizer {tokenizer_type} from"
        f" {plan.tokenizer_dir}; parser {plan.parser})"
    )


def parallel_sizes(engine: EngineFolder, tp: str, pp: str) -> dict[str, str]:
    """TP and PP as settings. Raises AssemblyError for an engine that cannot be split."""
    sizes = {"tensor_parallel_size": tp, "pipeline_parallel_size": pp}
    given = {name: size for name, size in sizes.items() if size}
    if given and engine.engine_type not in CHECKPOINT_ENGINES:
        raise AssemblyError(
            f"TP={tp} PP={pp}: ENGINE={engine.path} is for the engine {engine.engine_type}, which"
            " `make repo` cannot split; leave both out"
        )
    return given


def copy_mode(text: str) -> CopyMode:
    """ENGINE_COPY. Raises AssemblyError for anything but its three values."""
    if text not in get_args(CopyMode):
        known = ", ".join(get_args(CopyMode))
        raise AssemblyError(f"ENGINE_COPY={text}: not known; known: {known}")
    mode: CopyMode = text  # type: ignore[assignment]
    return mode

"""Imports of the package run downwards only, and never in a circle."""

from collections.abc import Iterator

import grimp
import pytest

# A part may import those that stand before it here; ARCHITECTURE.md says what each is for.
LAYERS = (
    "errors",
    "panics",
    "data_folders",
    "bounded_files",
    "files",
    "contract",
    "grpc_client",
    "ipc",
    "tokenizers",
    "parsers",
    "guides",
    "pipeline",
    "engine_host",
    "engine_files",
    "repository",
    "server",
    "demo",
    "ranks",
    "preflight",
    "docker",
    "triton_models",
    "gateway",
    "soak",
    "cli",
)


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Every import, also those that only type checkers follow."""
    return grimp.build_graph("trellis", exclude_type_checking_imports=False, cache_dir=None)


def arrows(graph: grimp.ImportGraph) -> Iterator[tuple[str, str]]:
    for module in sorted(graph.modules):
        for other in sorted(graph.find_modules_directly_imported_by(module)):
            yield module, other


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_part_is_known(graph: grimp.ImportGraph) -> None:
    assert {part(module) for module in graph.modules} - {""} <= set(LAYERS)


def test_no_part_imports_one_that_stands_above_it(graph: grimp.ImportGraph) -> None:
    height = {"": -1} | {name: number for number, name in enumerate(LAYERS)}
    upward = [
        f"{module} -> {other}"
        for module, other in arrows(graph)
        if height[part(other)] > height[part(module)] and part(module)
    ]
    assert upward == []


def test_no_modules_import_each_other_in_a_circle(graph: grimp.ImportGraph) -> None:
    left: dict[str, set[str]] = {module: set() for module in graph.modules}
    for module, other in arrows(graph):
        left[module].add(other)
    while free := {module for module, others in left.items() if not others & left.keys()}:
        left = {module: others for module, others in left.items() if module not in free}
    assert sorted(left) == [], "in a circle, or importing one that is"


def test_an_assembled_model_carries_all_that_it_imports(graph: grimp.ImportGraph) -> None:
    from trellis.repository.assemble import CARRIED, HOST

    carried = {name.removesuffix(".py") for name in CARRIED}
    for model, parts in {
        "preprocessing": carried,
        "postprocessing": carried,
        "tensorrt_llm": carried | {HOST},
    }.items():
        needed = graph.find_upstream_modules(f"trellis.triton_models.{model}")
        assert {part(module) for module in needed} - {""} <= parts, model

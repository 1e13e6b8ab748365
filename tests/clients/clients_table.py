"""The table of clients: what a run of them shows, and what docs/clients.md says."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "clients.md"
# Client -> the file that pins its package, and the package.
PACKAGES = {
    "aiperf": ("requirements.txt", "aiperf"),
    "LiteLLM": ("requirements.txt", "litellm"),
    "LlamaIndex": ("requirements.txt", "llama-index-llms-nvidia-triton"),
    "tritonclient": ("requirements.txt", "tritonclient"),
    "LangChain": ("requirements-langchain.txt", "langchain-nvidia-trt"),
    "openai": ("requirements.txt", "openai"),
    "openai (npm)": ("package.json", "openai"),
    "LangChain ChatOpenAI": ("requirements-api.txt", "langchain-openai"),
    "LlamaIndex OpenAILike": ("requirements-api.txt", "llama-index-llms-openai-like"),
    "instructor": ("requirements-agents.txt", "instructor"),
    "pydantic-ai": ("requirements-agents.txt", "pydantic-ai-slim"),
    "guidellm": ("requirements-api.txt", "guidellm"),
    "lm-eval": ("requirements-api.txt", "lm-eval"),
}
SCRIPTS = (
    "end_to_end_grpc_client.py",
    "inflight_batcher_llm_client.py",
    "end_to_end_test.py",
    "benchmark_core_model.py",
)
FRONTEND = "Triton's OpenAI frontend"


@dataclass(frozen=True)
class Row:
    """A client, one way to the server, and what came of it."""

    client: str
    version: str
    over: str
    result: str

    def worst(self, result: str) -> "Row":
        """With that result too: a failure stands for all, and so does what was not run."""
        ranks = [self.result, result]
        return replace(self, result=max(ranks, key=lambda one: (one == "failed", one != "passed")))


def read_versions() -> dict[str, str]:
    """Client -> the version that is pinned: of its package, or of its repository."""
    refs = {
        entry["name"]: entry["ref"] for entry in json.loads((HERE / "sources.json").read_text())
    }
    versions = {client: _pins(file)[package] for client, (file, package) in PACKAGES.items()}
    versions |= dict.fromkeys(SCRIPTS, refs["tensorrtllm_backend"])
    return versions | {FRONTEND: refs["server"]}


def _pins(file: str) -> dict[str, str]:
    """Package -> version, of pip's file or of npm's."""
    text = (HERE / file).read_text()
    if file == "package.json":
        dependencies: dict[str, str] = json.loads(text)["dependencies"]
        return dependencies
    lines = text.splitlines()
    return {match[1]: match[2] for line in lines if (match := re.match(r"([\w-]+).*==(\S+)", line))}


def read_page(text: str) -> list[Row]:
    """The rows of the page's first table."""
    rows = []
    for line in text.splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 5 and cells[0] != "client":
            rows.append(Row(cells[0], cells[1], cells[2], cells[4]))
    return rows


def show(rows: Sequence[Row]) -> list[str]:
    """The table in columns, with what is another than the page says."""
    names = max((len(row.client) for row in rows), default=0)
    versions = max((len(row.version) for row in rows), default=0)
    overs = max((len(row.over) for row in rows), default=0)
    return [
        f"{row.client:{names}}  {row.version:{versions}}  {row.over:{overs}}  {row.result}"
        for row in rows
    ]

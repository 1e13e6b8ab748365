"""What the repository's own files name is there: paths, make targets, links, their anchors."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from support.paths import ROOT

GITHUB = ROOT / ".github"
TARGET = re.compile(r"^([a-z-]+):.* ## ", re.MULTILINE)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+)(.+?)\1")
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
FILE = re.compile(
    r"[\w.*/-]+\.(?:py|md|json|jsonl|txt|toml|ya?ml|pbtxt|sh)|[\w.*-]+(?:/[\w.*-]+)*/"
)
# A path in these pages is the repository's, or one of the package's.
PAGES = {
    "ARCHITECTURE.md": (ROOT, ROOT / "src" / "trellis"),
    "CONTRIBUTING.md": (ROOT,),
    "SECURITY.md": (ROOT,),
    "examples/README.md": (ROOT, ROOT / "examples"),
}
# Of a wheel, an assembled repository, an engine, or whoever reads it.
ELSEWHERE = {"trellis/data/", ".trellis.json", "config.json", "generation_config.json"}
ELSEWHERE |= {"__init__.py", "mine.py"}
STANDARD = (
    "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md",
    ".editorconfig", ".pre-commit-config.yaml", ".github/CODEOWNERS", ".github/dependabot.yml",
    ".github/pull_request_template.md", ".github/workflows/ci.yml",
    ".github/ISSUE_TEMPLATE/bug.yml", ".github/ISSUE_TEMPLATE/feature.yml",
)  # fmt: skip


def listed(pattern: str) -> list[Path]:
    """The files of the checkout that git has or would add, by a pattern of git's."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.splitlines() if (ROOT / name).is_file()]


MARKDOWN = listed("*.md")
# A chart's templates are none before Helm has rendered them: tests/deploy/test_helm.py reads those.
YAML = [
    file
    for pattern in ("*.yml", "*.yaml")
    for file in listed(pattern)
    if "templates" not in file.parts
]


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def targets() -> set[str]:
    return set(TARGET.findall((ROOT / "Makefile").read_text()))


def made(text: str) -> Iterator[str]:
    """The targets of the `make` commands in a text."""
    for words in re.findall(r"^(?:.*&& )?make((?: [\w=.:,/*-]+)+)", text, re.MULTILINE):
        yield from (word for word in words.split() if "=" not in word)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    result = set()
    for heading in HEADING.findall(FENCE.sub("", page.read_text())):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        times = found[anchor] = found.get(anchor, -1) + 1
        result.add(f"{anchor}-{times}" if times else anchor)
    return result


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


SOURCES = [
    file
    for folder in ("src/trellis", "tools", "tokenizers", "parsers", "model_repo_src")
    for file in listed(f"{folder}/*.py")
]


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_every_source_begins_with_its_licence(source: Path) -> None:
    text = source.read_text()
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert ast.get_docstring(ast.parse(text)), "the module's docstring follows"


@pytest.mark.parametrize("name", STANDARD)
def test_a_file_that_every_repository_has_is_there(name: str) -> None:
    assert (ROOT / name).read_text().strip()


@pytest.mark.parametrize("file", YAML, ids=name_of)
def test_yaml_can_be_read(file: Path) -> None:
    assert all(
        document is not None
        for document in yaml.safe_load_all(file.read_text().replace("!!python/name:", ""))
    )


@pytest.mark.parametrize("file", MARKDOWN, ids=name_of)
def test_every_link_within_the_repository_leads_somewhere(file: Path) -> None:
    text = CODE.sub("", FENCE.sub("", file.read_text()))
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):  # another site's
            continue
        path, _, anchor = link.partition("#")
        page = (file.parent / path).resolve() if path else file
        assert page.exists(), link
        assert ROOT in (page, *page.parents), link
        if anchor:
            assert anchor in anchors(page), link


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page: str) -> None:
    for _, code in CODE.findall(FENCE.sub("", (ROOT / page).read_text())):
        is_path = re.fullmatch(FILE, code) and not re.search("NAME|VERSION", code)
        if is_path and code not in ELSEWHERE:
            assert any(any(root.glob(code.rstrip("/"))) for root in PAGES[page]), code


@pytest.mark.parametrize("file", MARKDOWN, ids=name_of)
def test_every_test_that_a_page_runs_exists(file: Path) -> None:
    for test in re.findall(r"\btests/[\w/]+\.py\b", file.read_text()):
        assert (ROOT / test).is_file(), test


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"])
def test_every_target_that_a_page_names_is_one_of_the_makefile(page: str) -> None:
    text = (ROOT / page).read_text()
    code = [block[0] for block in re.finditer(FENCE, text)]
    code += [inline for _, inline in CODE.findall(FENCE.sub("", text))]
    named = {target for block in code for target in made(block)}
    assert named
    assert named <= targets()


def test_ci_runs_every_folder_of_tests_and_the_workflow_every_script() -> None:
    scripts = {path.name: path.read_text() for path in (ROOT / "ci").iterdir()}
    named = {name for text in scripts.values() for name in re.findall(r"\btests/(\w+)", text)}
    makefile = (ROOT / "Makefile").read_text()
    commands = "\n".join(line for line in makefile.splitlines() if "pytest" in line.lower())
    named |= set(re.findall(r"\btests/(\w+)", commands))
    tests = [path.relative_to(ROOT / "tests") for path in (ROOT / "tests").glob("*/**/test_*.py")]
    folders = {path.parts[0] for path in tests}
    assert folders <= named
    (job,) = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())["jobs"].values()
    parts = job["strategy"]["matrix"]["part"]
    assert {*parts, "all", "common", "fresh-debian", "test"} == set(scripts)
    assert set(re.findall(r"^ *ci/(\w+)", scripts["all"], re.M)) == set(parts)  # some with --long
    assert set(re.findall(r"^ci/(\w+)", scripts["test"], re.M)) < set(parts)
    for name, text in scripts.items():
        if name != "common":
            assert (ROOT / "ci" / name).stat().st_mode & 0o111, name
            assert text.startswith("#!/usr/bin/env bash\n# "), name


def test_the_workflow_installs_what_the_readme_names() -> None:
    workflow = (GITHUB / "workflows" / "ci.yml").read_text()
    packages = re.findall(r"apt-get install -y ([\w -]+)", workflow)
    contributing = re.findall(
        r"apt-get install -y ([\w -]+)", (ROOT / "CONTRIBUTING.md").read_text()
    )
    readme = re.findall(r"apt-get install -y ([\w -]+)", (ROOT / "README.md").read_text())
    assert {names.strip() for names in (*packages, *contributing)} == {readme[0].strip()}


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_an_issue_form_has_what_the_host_asks_for(name: str) -> None:
    form = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
    assert {"name", "description", "body"} <= form.keys()
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    assert {part["type"] for part in asked} <= {"input", "textarea", "dropdown", "checkboxes"}
    assert all(part["attributes"]["label"] for part in asked)
    ids = [part["id"] for part in asked]
    assert len(ids) == len(set(ids))
    if name == "bug":
        assert {"release", "check", "log"} <= set(ids)
        assert "trellis check --json" in str(form)


def test_dependabot_looks_where_there_is_something() -> None:
    config = yaml.safe_load((GITHUB / "dependabot.yml").read_text())
    assert config["version"] == 2
    assert {one["package-ecosystem"] for one in config["updates"]} == {"pip", "github-actions"}
    for one in config["updates"]:
        folder = ROOT / one["directory"].strip("/")
        kinds = (
            ("*.toml", "*.txt") if one["package-ecosystem"] == "pip" else (".github/workflows/*",)
        )
        assert any(list(folder.glob(kind)) for kind in kinds), one


def test_pre_commit_runs_the_ruff_of_the_venv() -> None:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    for hook in repo["hooks"]:
        assert {"id", "name", "entry", "language"} <= hook.keys()
        assert hook["entry"].startswith(".venv/bin/ruff ")


def test_every_file_has_an_owner() -> None:
    lines = (GITHUB / "CODEOWNERS").read_text().splitlines()
    pattern, *owners = lines[0].split()
    assert pattern == "*"
    assert owners
    assert all(re.fullmatch(r"@[\w-]+/[\w-]+", owner) for owner in owners)


def test_the_changelog_begins_with_this_version() -> None:
    import trellis

    versions = re.findall(r"^## (\d\S*) - ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == trellis.__version__

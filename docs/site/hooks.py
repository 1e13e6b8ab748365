# SPDX-License-Identifier: Apache-2.0
"""Builds the site of pages that read the same in the repository: see mkdocs.yml.

The pages at the top of the repository belong to it too, and so do the results of benchmarks. What
else a page links to outside docs/ is source, which the site names but does not hold.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
TOP = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
INDEX = "index.md"  # the README
PICTURES = "benchmarks/results/*.png"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that lie outside docs/."""
    paths = [ROOT / name for name in TOP] + sorted(ROOT.glob(PICTURES))
    paths += [*ROOT.glob("benchmarks/*.md"), *ROOT.glob("benchmarks/results/*.md")]
    for path in paths:
        name = str(path.relative_to(ROOT))
        files.append(File.generated(config, name, abs_src_path=str(path)))
    files.append(File.generated(config, INDEX, abs_src_path=str(ROOT / "README.md")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at where the pages are in the site; name what is not there."""
    return LINK.sub(lambda link: _moved(link, page, files), markdown)


def _moved(link: "re.Match[str]", page: Page, files: Files) -> str:
    mark, text, target, anchor = link[1], link[2], link[3], link[4] or ""
    if "://" in target or target.startswith("mailto:"):
        return link[0]
    uri = page.file.src_uri
    in_repository = uri if uri in TOP or uri.startswith("benchmarks/") else f"docs/{uri}"
    if uri == INDEX:
        in_repository = "README.md"
    found = ((ROOT / in_repository).parent / target).resolve()
    name = str(found.relative_to(ROOT))
    inside = name.removeprefix("docs/")
    if name == "README.md":
        inside = INDEX
    if files.get_file_from_path(inside) is None:
        return f"{text} (`{name}`)"
    up = "../" * uri.count("/")
    return f"{mark}[{text}]({up}{inside}{anchor})"

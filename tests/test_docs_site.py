"""The pages build as a site, and every link in it leads somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_of_docs_is_in_the_site_and_in_its_menu(site: Path) -> None:
    menu = (ROOT / "mkdocs.yml").read_text().split("nav:")[1]
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / page.stem / "index.html").is_file(), page.name
        assert f": {page.name}\n" in menu


def test_pages_and_pictures_that_the_site_links_to_are_there(site: Path) -> None:
    for page in site.rglob("index.html"):
        text = page.read_text()
        for target in re.findall(r'(?:href|src)="([^"#:?]+)"', text):
            path = (site / target[1:]) if target.startswith("/") else (page.parent / target)
            assert path.exists(), f"{page.relative_to(site)}: {target}"

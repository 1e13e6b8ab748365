# SPDX-License-Identifier: Apache-2.0
"""A real Chromium, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from support.fake_openai import FakeOpenAI, fake_openai
from support.fake_status import FakeStatus, fake_status

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
PHONE = {"width": 360, "height": 640}


def arguments() -> list[str]:
    """Of Chromium's command line: root has no sandbox."""
    return ["--no-sandbox"] if os.geteuid() == 0 else []


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="needs the package playwright: ci/browser installs it"
    )
    if CHROMIUM is None:
        pytest.skip("needs Chromium: sudo apt-get install -y chromium, or CHROMIUM=its path")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments())
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """An empty tab of a phone's size; fails where its console has an error or a violation."""
    context = chromium.new_context(viewport=PHONE)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda line: wrong.append(line.text) if "olicy" in line.text else None)
    yield opened
    context.close()
    assert wrong == []


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    """The page, with answers that the test decides."""
    with fake_openai() as running:
        yield running


@pytest.fixture
def status() -> Iterator[FakeStatus]:
    """The page at /status, with figures that the test decides."""
    with fake_status() as running:
        yield running

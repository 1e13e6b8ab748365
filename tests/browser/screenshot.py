# SPDX-License-Identifier: Apache-2.0
"""Draw the page for the docs: PYTHONPATH=tests python -m browser.screenshot docs/page.png.

The page is the real one; the answer is given, so that the picture is the same each time.
"""

import re
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from browser.conftest import CHROMIUM, arguments
from support.fake_openai import fake_openai

ANSWER = "서울은 대한민국의 수도이고, 한강이 그 가운데를 흐릅니다."


def main(path: Path) -> None:
    """Ask once and write the picture."""
    with fake_openai() as fake, sync_playwright() as playwright:
        fake.pieces, fake.seconds = re.findall(r"\S+\s*", ANSWER), 0.05
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments())
        tab = browser.new_page(viewport={"width": 640, "height": 480})
        tab.goto(fake.url)
        tab.click("summary")
        tab.fill("#temperature", "0.7")
        tab.fill("#seed", "42")
        tab.fill("#prompt", "Tell me about Seoul, in Korean.")
        tab.click("#send")
        tab.wait_for_selector(".numbers")
        tab.screenshot(path=path)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

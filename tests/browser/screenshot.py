# SPDX-License-Identifier: Apache-2.0
"""Draw the pages for the docs: PYTHONPATH=tests python -m browser.screenshot docs.

The pages are the real ones; answer and figures are given, so that the pictures are the same each
time.
"""

import re
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from browser.conftest import CHROMIUM, arguments
from support.fake_openai import fake_openai
from support.fake_status import busy, fake_status

ANSWER = "서울은 대한민국의 수도이고, 한강이 그 가운데를 흐릅니다."


LOOKS = 120


def main(folder: Path) -> None:
    """Write both pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments())
        draw_chat(browser, folder / "page.png")
        draw_status(browser, folder / "status.png")
        browser.close()


def draw_chat(browser: Browser, path: Path) -> None:
    """Ask once."""
    with fake_openai() as fake:
        fake.pieces, fake.seconds = re.findall(r"\S+\s*", ANSWER), 0.05
        tab = browser.new_page(viewport={"width": 640, "height": 480})
        tab.goto(fake.url)
        tab.click("summary")
        tab.fill("#temperature", "0.7")
        tab.fill("#seed", "42")
        tab.fill("#prompt", "Tell me about Seoul, in Korean.")
        tab.click("#send")
        tab.wait_for_selector(".numbers")
        tab.screenshot(path=path)


def draw_status(browser: Browser, path: Path) -> None:
    """Look until the charts are full."""
    with fake_status() as fake:
        tab = browser.new_page(viewport={"width": 1000, "height": 700})
        fake.models["ensemble"] = busy(0)
        tab.goto(fake.url)
        tab.evaluate("clearInterval(asking)")  # looks are made below
        for look in range(1, LOOKS):
            fake.pass_time(2, **busy(look))
            tab.evaluate("look()")
            tab.wait_for_function(f"taken[taken.length - 1].seconds === {fake.seconds}")
        tab.evaluate("say('As of 12:00:00, every two seconds.', false)")
        tab.screenshot(path=path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

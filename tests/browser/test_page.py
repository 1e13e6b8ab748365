# SPDX-License-Identifier: Apache-2.0
"""The page at / in a real Chromium: it asks, streams, stops, and shows errors."""

import re
from typing import Any

import pytest

from support.fake_openai import FakeOpenAI
from support.waiting import wait_for
from trellis.server.process import Server

KOREAN = ["안녕", "하세", "요! ", "한국어 ", "👩‍👩‍👧‍👦"]
MARKUP = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


def ask(tab: Any, text: str) -> None:
    tab.fill("#prompt", text)
    tab.press("#prompt", "Enter")


def answers(tab: Any) -> list[str]:
    return list(tab.locator("article.assistant p").all_inner_texts())


def done(tab: Any) -> None:
    tab.wait_for_selector("#send:enabled")


def test_an_answer_streams_in_korean_with_its_numbers(tab: Any, fake: FakeOpenAI) -> None:
    fake.pieces, fake.seconds = KOREAN, 0.2
    tab.goto(fake.url)
    ask(tab, "안녕?")
    seen = set()
    while tab.locator("#stop").is_enabled():
        seen.update(answers(tab))
    assert answers(tab) == ["".join(KOREAN)]
    assert len(seen) > 2, "the text came at once"
    assert all("".join(KOREAN).startswith(text.strip()) for text in seen)
    numbers = tab.inner_text(".numbers")
    assert re.fullmatch(r"first token after \d+ ms · 5 tokens · [\d.]+ tokens/s", numbers)


def test_what_is_asked_has_the_options_and_the_chat_so_far(tab: Any, fake: FakeOpenAI) -> None:
    fake.pieces = ["yes"]
    tab.goto(fake.url)
    tab.wait_for_selector("#model option", state="attached")
    tab.select_option("#model", "other")
    tab.click("summary")
    for field, value in {"temperature": "0.5", "seed": "7", "max_tokens": "9", "key": "k"}.items():
        tab.fill(f"#{field}", value)
    tab.fill("#system", "Be brief.")
    for text in ("one", "two"):
        ask(tab, text)
        done(tab)
    first, second = fake.asked
    assert first == {
        "model": "other",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "one"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "seed": 7,
        "max_tokens": 9,
    }
    assert second["messages"] == [
        *first["messages"],
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "two"},
    ]
    assert fake.keys == ["Bearer k"] * 2
    kept = tab.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
    assert kept == [0, 0, ""]


def test_thoughts_are_folded_away_before_the_text(tab: Any, fake: FakeOpenAI) -> None:
    fake.thoughts, fake.pieces = ["Hm, ", "안녕 ", MARKUP], ["Yes."]
    tab.goto(fake.url)
    ask(tab, "Well?")
    done(tab)
    assert answers(tab) == ["Yes."]
    assert not tab.locator(".thoughts").is_visible()
    tab.click("article.assistant summary")
    assert tab.inner_text(".thoughts") == f"Hm, 안녕 {MARKUP}"
    assert tab.title() != "run"
    fake.thoughts = []
    ask(tab, "And?")
    done(tab)
    assert fake.asked[1]["messages"][1] == {"role": "assistant", "content": "Yes."}
    assert tab.locator(".thoughts").count() == 1


def test_options_that_nobody_set_are_not_sent(tab: Any, fake: FakeOpenAI) -> None:
    fake.pieces = ["yes"]
    tab.goto(fake.url)
    ask(tab, "one")
    done(tab)
    assert not {"temperature", "seed"} & fake.asked[0].keys()
    assert fake.keys == [None]


@pytest.mark.parametrize("how", ["button", "key", "new chat"])
def test_stopping_ends_the_request_and_keeps_the_text(how: str, tab: Any, fake: FakeOpenAI) -> None:
    fake.pieces, fake.seconds = ["word "] * 500, 0.05
    tab.goto(fake.url)
    ask(tab, "go on")
    wait_for(lambda: len("".join(answers(tab))) > 20)
    if how == "key":
        tab.keyboard.press("Escape")
    else:
        tab.click("#stop" if how == "button" else "#clear")
    done(tab)
    wait_for(lambda: fake.left)
    if how == "new chat":
        assert answers(tab) == []
        fake.pieces, fake.seconds = ["fresh"], 0.0
        ask(tab, "again")
        done(tab)
        assert len(fake.asked[1]["messages"]) == 1
    else:
        assert answers(tab)[0].startswith("word word")
        assert tab.inner_text(".numbers").endswith("stopped")


def test_an_error_shows_the_servers_message_and_gives_the_text_back(
    tab: Any, fake: FakeOpenAI
) -> None:
    fake.error = (400, f"messages: too long {MARKUP}")
    tab.goto(fake.url)
    ask(tab, "a question")
    tab.wait_for_selector("[role=alert]")
    assert tab.inner_text("[role=alert]") == f"400: messages: too long {MARKUP}"
    assert tab.input_value("#prompt") == "a question"
    assert tab.title() == "Trellis"


def test_an_error_within_a_stream_is_shown_behind_its_text(tab: Any, fake: FakeOpenAI) -> None:
    fake.pieces, fake.broken = ["half "], "the engine died"
    tab.goto(fake.url)
    ask(tab, "go")
    tab.wait_for_selector("[role=alert]")
    assert (answers(tab), tab.inner_text("[role=alert]")) == (["half "], "the engine died")


def test_markup_in_an_answer_is_text(tab: Any, fake: FakeOpenAI) -> None:
    fake.pieces = [MARKUP]
    tab.goto(fake.url)
    ask(tab, MARKUP)
    done(tab)
    assert answers(tab) == [MARKUP]
    assert tab.locator("article img, article script").count() == 0
    assert tab.title() == "Trellis"


def test_all_of_it_fits_a_phone_and_has_names_for_screen_readers(
    tab: Any, fake: FakeOpenAI
) -> None:
    fake.pieces = ["x" * 300]
    tab.goto(fake.url)
    tab.click("summary")
    ask(tab, "y" * 300)
    done(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert tab.evaluate("document.activeElement.id") == "prompt"
    tab.click("summary")
    assert tab.locator("#send").is_visible()
    for name in ("Model", "Temperature", "Seed", "API key", "System message"):
        assert tab.get_by_label(name, exact=False).count() == 1, name
    assert tab.get_by_role("status").count() == 1


def test_a_real_server_answers(tab: Any, server: Server) -> None:
    tab.goto(f"{server.settings.url}/")
    tab.wait_for_selector("#model option", state="attached")
    assert tab.input_value("#model") == "ensemble"
    tab.click("summary")
    for field, value in {"temperature": "0", "seed": "1", "max_tokens": "12"}.items():
        tab.fill(f"#{field}", value)
    ask(tab, "What is the capital of France?")
    tab.wait_for_selector(".numbers", timeout=120_000)
    assert "Paris" in answers(tab)[0]
    assert re.search(r" · ([2-9]|1[0-2]) tokens · [\d.]+ tokens/s", tab.inner_text(".numbers"))
    tab.fill("#temperature", "-1")
    ask(tab, "Again.")
    tab.wait_for_selector("[role=alert]", timeout=60_000)
    assert "temperature" in tab.inner_text("[role=alert]")

"""The page at /status in a real Chromium: rates and quantiles of what the server says."""

import re
from typing import Any

import httpx

from support.fake_status import FakeStatus, buckets
from support.waiting import wait_for
from trellis.contract.metrics import FIRST_TOKEN
from trellis.server.process import Server


def shown(tab: Any, chart: str) -> list[str]:
    """The values that a chart shows now."""
    return list(tab.locator(f"#{chart} p b").all_inner_texts())


def looked(tab: Any, status: FakeStatus) -> None:
    """The page asked once more, and drew it."""
    tab.evaluate("look()")
    tab.wait_for_function(f"taken[taken.length - 1].seconds === {status.seconds}")


def test_rates_are_of_the_servers_own_clock(tab: Any, status: FakeStatus) -> None:
    status.models["ensemble"] = {"tokens": 1000, "prompt_tokens": 50, "requests": 10}
    tab.goto(status.url)
    looked(tab, status)
    assert shown(tab, "tokens") == ["–", "–"], "one point is no rate"
    status.pass_time(4, tokens=1800, prompt_tokens=250, requests=12, rejected=1)
    looked(tab, status)
    assert shown(tab, "tokens") == ["200", "50"]
    assert shown(tab, "requests") == ["0.5", "0.25"]
    assert tab.get_attribute("#tokens .line1", "d").startswith("M")


def test_quantiles_are_of_what_is_new(tab: Any, status: FakeStatus) -> None:
    status.models["ensemble"] = {"requests": 1, "first_token": buckets(FIRST_TOKEN, 5.0, 100)}
    tab.goto(status.url)
    looked(tab, status)
    new = [
        [bound, count + 10 * (bound is None or bound >= 0.1)]
        for bound, count in buckets(FIRST_TOKEN, 5.0, 100)
    ]
    status.pass_time(2, first_token=new)
    looked(tab, status)
    assert shown(tab, "first") == ["90.0 ms", "99.0 ms"], "between 80 and 100 ms"


def test_gauges_and_shares(tab: Any, status: FakeStatus) -> None:
    status.models["ensemble"] = {"running": 3, "waiting": 2, "prefix_queries": 0, "prefix_hits": 0}
    tab.goto(status.url)
    looked(tab, status)
    status.pass_time(2, kv_cache=0.25, prefix_queries=200, prefix_hits=50)
    looked(tab, status)
    assert shown(tab, "batch") == ["3", "2"]
    assert shown(tab, "cache") == ["25 %", "25 %"]


def test_a_server_that_began_anew_has_no_rates_below_zero(tab: Any, status: FakeStatus) -> None:
    status.models["ensemble"] = {"tokens": 1000, "requests": 10}
    tab.goto(status.url)
    looked(tab, status)
    status.pass_time(2, tokens=20, requests=1)
    looked(tab, status)
    assert shown(tab, "tokens")[0] == "10"


def test_models_are_chosen_and_their_names_are_text(tab: Any, status: FakeStatus) -> None:
    name = "<img src=x>"
    status.models = {"": {"requests": 5}, "ensemble": {"running": 1}, name: {"running": 7}}
    tab.goto(status.url)
    tab.wait_for_selector("#model option", state="attached")
    options = tab.locator("#model option").all_inner_texts()
    assert options == ["ensemble", name, "(no model)"]
    tab.select_option("#model", name)
    assert shown(tab, "batch")[0] == "7"
    assert tab.locator("img").count() == 0


def test_an_error_is_said_and_ends_with_the_next_answer(tab: Any, status: FakeStatus) -> None:
    status.error = 401
    tab.goto(status.url)
    tab.wait_for_selector("#said.error")
    assert tab.inner_text("#said") == "No figures: the server says 401"
    status.error = 0
    tab.fill("#key", "secret")
    tab.press("#key", "Tab")
    tab.wait_for_selector("#said:not(.error)")
    assert status.keys[-1] == "Bearer secret"
    kept = tab.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
    assert kept == [0, 0, ""]


def test_it_asks_again_by_itself(tab: Any, status: FakeStatus) -> None:
    tab.goto(status.url)
    wait_for(lambda: status.asked >= 2)


def test_all_of_it_fits_a_phone(tab: Any, status: FakeStatus) -> None:
    status.models["ensemble"] = {"running": 1}
    tab.goto(status.url)
    looked(tab, status)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    for name in ("Model", "API key"):
        assert tab.get_by_label(name).count() == 1
    assert tab.get_by_role("img").count() == tab.locator("figure").count() == 9


def test_a_real_server_is_shown(tab: Any, server: Server) -> None:
    tab.goto(f"{server.settings.url}/status")
    tab.wait_for_function("taken.length > 0")
    body = {"model": "ensemble", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 16}
    url = f"{server.settings.url}/v1/chat/completions"
    assert httpx.post(url, json=body, timeout=120).status_code == 200
    tab.evaluate("look()")
    tab.wait_for_function("document.querySelector('#first p b').textContent !== '–'")
    assert tab.input_value("#model") == "ensemble"
    assert re.fullmatch(r"[\d.]+ (ms|s)", shown(tab, "first")[0])
    assert shown(tab, "open") == ["0"]
    assert tab.inner_text("#said").startswith("As of ")

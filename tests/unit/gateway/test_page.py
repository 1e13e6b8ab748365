# SPDX-License-Identifier: Apache-2.0
"""The page at `/` and its policy; what it does in a browser is in tests/browser."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterator

import httpx
import pytest

from support.fake_triton_http import FakeTriton
from support.gateway_process import gateway

CSP = "content-security-policy"


@pytest.fixture(scope="module")
def triton() -> Iterator[FakeTriton]:
    with FakeTriton() as running:
        yield running


@pytest.fixture(scope="module", params=["/", "/status"])
def page(triton: FakeTriton, request: pytest.FixtureRequest) -> httpx.Response:
    with gateway(triton.port, os.getpid()) as running:
        return httpx.get(f"http://127.0.0.1:{running.port}{request.param}")


def digest_of(page: str, element: str) -> str:
    (text,) = re.findall(f"<{element}[^>]*>(.*?)</{element}>", page, re.DOTALL)
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_the_policy_allows_what_is_in_the_page_and_asking_this_server(page: httpx.Response) -> None:
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(rule.strip().split(" ", 1) for rule in page.headers[CSP].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest_of(page.text, 'script')}'",
        "style-src": f"'sha256-{digest_of(page.text, 'style')}'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"


def test_the_page_names_no_other_place_and_makes_no_markup_of_texts(page: httpx.Response) -> None:
    text = page.text.replace("http://www.w3.org/2000/svg", "")  # a name, which nobody asks
    assert not re.search(r"https?://|\bsrc=|@import|url\(", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", page.text)
    assert not re.search(r"localStorage|sessionStorage|document\.cookie", page.text)


def test_a_gateway_without_the_page_has_no_such_path(triton: FakeTriton) -> None:
    with gateway(triton.port, os.getpid(), page=False) as running:
        for path in ("/", "/status", "/status/figures"):
            answer = httpx.get(f"http://127.0.0.1:{running.port}{path}")
            assert answer.status_code == 404
            assert "there is no such path" in json.loads(answer.text)["error"]


def test_the_figures_of_a_page_are_sums_of_each_model(triton: FakeTriton) -> None:
    with gateway(triton.port, os.getpid()) as running:
        url = f"http://127.0.0.1:{running.port}"
        triton.error = "out of order"
        body = {"text_input": "x"}
        assert httpx.post(f"{url}/v2/models/ensemble/generate", json=body).status_code == 400
        triton.error = ""
        answer = httpx.get(f"{url}/status/figures")
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json()
    assert found["seconds"] > 0
    figures = found["models"]["ensemble"]
    assert (figures["requests"], figures["rejected"], figures["in_flight"]) == (1, 1, 0)

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


@pytest.fixture(scope="module")
def page(triton: FakeTriton) -> httpx.Response:
    with gateway(triton.port, os.getpid()) as running:
        return httpx.get(f"http://127.0.0.1:{running.port}/")


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
    assert not re.search(r"https?://|\bsrc=|@import|url\(", page.text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", page.text)
    assert not re.search(r"localStorage|sessionStorage|document\.cookie", page.text)


def test_a_gateway_without_the_page_has_no_such_path(triton: FakeTriton) -> None:
    with gateway(triton.port, os.getpid(), page=False) as running:
        answer = httpx.get(f"http://127.0.0.1:{running.port}/")
    assert answer.status_code == 404
    assert "there is no such path" in json.loads(answer.text)["error"]

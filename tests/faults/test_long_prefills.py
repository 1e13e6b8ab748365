# SPDX-License-Identifier: Apache-2.0
"""A prompt that is read for long, by an engine that is slow and does not hang: no false alarm.

The engine is OpenVINO's: the library of another makes its steps itself.
PREFILL_MINUTES has it go on for so long, with prefills of a minute and the default time-out.
"""

import os
import shutil
import time
from pathlib import Path

import httpx

from support.edited_engine import edit_engine
from support.load import ENSEMBLE
from support.serving import serve

MINUTES = float(os.environ.get("PREFILL_MINUTES", "0"))
HANG_SECONDS, PREFILL_SECONDS = (30, 60) if MINUTES else (5, 18)
LONG = 2000  # tokens of a prompt
# Steps that read a piece of such a prompt take nearly as long as a hang, and make no token.
PREFILLING = """

import time

_step, _add = {engine}.step, {engine}.add


def _slow_add(self, key, ids, sampling):
    if len(ids) > 1000:
        self._reads_until = time.monotonic() + SECONDS
    _add(self, key, ids, sampling)


def _slow_step(self):
    left = getattr(self, "_reads_until", 0) - time.monotonic()
    if left > 0:
        time.sleep(min(left, PIECE))
        return []
    return _step(self)


{engine}.step, {engine}.add = _slow_step, _slow_add
"""


def test_a_prefill_of_many_slow_steps_is_no_hang(demo_repo: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    shutil.copytree(demo_repo, repo)
    piece = str(HANG_SECONDS * 0.8)
    edit_engine(repo, PREFILLING.replace("SECONDS", str(PREFILL_SECONDS)).replace("PIECE", piece))
    options = ("--hang_timeout", str(HANG_SECONDS))
    answers: set[str] = set()
    with (
        serve(repo, tmp_path, *options, launcher=True) as launched,
        httpx.Client(base_url=launched.url, timeout=PREFILL_SECONDS * 4) as client,
    ):
        end, asked = time.monotonic() + MINUTES * 60, 0
        while not asked or time.monotonic() < end:
            begin = time.monotonic()
            body = {"text_input": "I have a horse.\n" * (LONG // 5), "max_tokens": 4}
            answer = client.post(f"{ENSEMBLE}/generate", json=body)
            assert answer.status_code == 200, answer.text
            assert time.monotonic() - begin > PREFILL_SECONDS
            answers.add(answer.json()["text_output"])
            assert client.get("/v2/health/ready").status_code == 200
            asked += 1
        assert len(answers) == 1
        assert "HANG" not in launched.log()
        assert launched.stop() == 0
    print(f"\n{asked} prefills of {PREFILL_SECONDS} s, hang time-out {HANG_SECONDS} s: no alarm")

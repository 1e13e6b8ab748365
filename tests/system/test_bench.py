"""The benchmark: a run on the stand-in engine, and its parts on data with known figures."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support.paths import ROOT

sys.path.append(str(ROOT / "benchmarks" / "pipeline"))

import accounting
import compare
import lengths
import plan
import report
from arrivals import Answer, read
from jobs import Load, Sent
from measure import Figures, check, evaluate
from repositories import PIPELINES
from rounds import add_to_floor, hold_against_raw, summary

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def run(*arguments: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """The command line of `make bench`."""
    command = [sys.executable, str(ROOT / "benchmarks" / "pipeline"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JSON of a short run of every pipeline."""
    pytest.importorskip("matplotlib", reason="`make bench` installs it")
    out = tmp_path_factory.mktemp("bench") / "run"
    done = run("--quick", "--rounds", "1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out.with_name("run.json")


def test_every_pipeline_answers_every_request_rightly(results: Path) -> None:
    found = json.loads(results.read_text())
    assert list(found["cases"]) == [case.name for case in plan.quick()]
    for case, pipelines in found["cases"].items():
        expected = next(c.pipelines for c in plan.quick() if c.name == case)
        assert list(pipelines) == list(expected), case
        for name, figures in pipelines.items():
            # HTTP chunks that Triton drops on a busy machine are reported, and are not wrong text.
            faults = set(figures["wrong"]) - {"chunks lost", "no end came"}
            assert not faults, (case, name, figures["wrong"])
            assert figures["requests"] > 0, (case, name)
            assert figures["memory_mib"] > 1, (case, name)


def test_a_hop_through_a_python_model_costs_what_it_costs(results: Path) -> None:
    """The floor is below everything, and each process is charged: neither figure can be nothing."""
    for pipelines in json.loads(results.read_text())["cases"].values():
        floor = pipelines["triton"]
        assert set(floor["cores_by_process"]) == {"tritonserver"}
        assert {"preprocessing", "postprocessing"} < set(pipelines["ours"]["cores_by_process"])
        for name, figures in pipelines.items():
            key = "cpu_ms_per_request"
            assert name == "triton" or figures[key] > floor[key], (name, figures[key])


def test_it_draws_its_results(results: Path) -> None:
    picture = results.with_name("run-cases.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000


def test_an_unknown_pipeline_is_named_with_those_there_are() -> None:
    done = run("--pipelines", "theirs")
    assert done.returncode == 1
    assert "no pipeline theirs; known: triton, do-nothing, reference, ours" in done.stderr


def test_a_pattern_that_no_case_matches_is_said_before_anything_starts() -> None:
    done = run("--cases", "nothing like this")
    assert done.returncode == 1
    assert "no case matches 'nothing like this'" in done.stderr


def test_profiles_name_the_cases_that_there_are() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "pipeline" / "profiles.py")]
    command += ["ours-front", "--case", "unstreamed", "--case", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no case nothing; known: 1 streams, paced;" in done.stderr


def test_cpu_time_counts_threads_and_children_that_ended() -> None:
    burn = "import time\ndef burn():\n    while time.thread_time() < 0.3: pass\n"
    script = (
        burn + "import subprocess, sys, threading\n"
        "thread = threading.Thread(target=burn); thread.start(); thread.join()\n"
        f"subprocess.run([sys.executable, '-c', {burn + 'burn()'!r}])\n"
        "print('burnt', flush=True); input()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert 0.55 < accounting.cpu_seconds(process.pid) < 2
        assert accounting.memory([process.pid]) > 1
    finally:
        process.communicate(b"\n")


def test_a_process_that_is_gone_is_left_out() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert accounting.sample([process.pid, os.getpid()]).keys() == {os.getpid()}


def event(text: str) -> bytes:
    body = b"data: " + json.dumps({"text_output": text}).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(body), body)


def test_chunks_are_timed_by_the_piece_that_completes_them() -> None:
    first, second = event("one\n\n"), event("two")
    pieces = [(1.0, HEAD + first[:9]), (2.0, first[9:] + second), (3.0, b"0\r\n\r\n")]
    answer = read(Sent(0, 0.5, pieces, True), "http")
    assert answer.times == [2.0, 2.0]
    assert answer.values == ["one\n\n", "two"]


def test_an_error_in_a_stream_is_a_fault() -> None:
    body = b'data: {"error":"in ensemble: no"}\n\n'
    pieces = [(1.0, HEAD + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))]
    assert read(Sent(0, 0.0, pieces, True), "http").error == "in ensemble: no"


class OneTokenACharacter:
    """A tokenizer whose ids are code points."""

    class tokenizer:
        """What `check` decodes with."""

        @staticmethod
        def decode(ids: list[int]) -> str:
            return "".join(map(chr, ids))


@pytest.mark.parametrize(
    ("values", "fault", "lost"),
    [(["a", "b"], None, 0), (["a"], "chunks lost", 1), (["a", "x"], "wrong text", 0)],
)
def test_lost_and_wrong_chunks_are_told_apart(values: Any, fault: str | None, lost: int) -> None:
    answer = Answer(0, 0.0, [1.0] * len(values), values)
    case = plan.Case("two", streams=1, tokens=2)
    texts: Any = OneTokenACharacter
    wrong, missing = check([answer], [[97, 98]], PIPELINES["ours"], case, texts)
    assert (wrong, missing) == ({fault: 1} if fault else {}, lost)


def test_only_what_falls_into_the_window_counts() -> None:
    case = plan.Case("fixed", streams=1, tokens=2)
    asked = [Answer(0, 0.0, [0.5, 1.5], ["a", "b"]), Answer(0, 1.6, [1.7, 9.0], ["a", "b"])]
    load = Load(begin=1.0, end=3.0, cpu_begin={7: 1.0, 8: 1.0}, cpu_end={7: 1.5, 8: 1.25})
    figures = evaluate(load, asked, {7: "tritonserver", 8: "postprocessing"}, case)
    assert figures.chunks_per_s == 1.0
    assert figures.cpu_us_per_chunk == 375_000
    assert figures.ttft_p50 == pytest.approx(100)
    assert figures.itl_p50 == pytest.approx(1000)
    assert figures.requests_per_s == 0.5
    assert figures.cores_by_process == {"tritonserver": 0.25, "postprocessing": 0.125}


def test_a_change_within_the_rounds_spread_is_no_verdict() -> None:
    before = {"spread": {"cpu_us_per_chunk": [100, 120], "tokens_per_s": [10, 12]}}
    overlapping = {"spread": {"cpu_us_per_chunk": [90, 101], "tokens_per_s": [13, 14]}}
    assert compare.verdict(before, overlapping, "cpu_us_per_chunk") == ""
    assert compare.verdict(before, overlapping, "tokens_per_s") == "better"
    assert compare.verdict(overlapping, before, "tokens_per_s") == "worse"
    lower = {"spread": {"cpu_us_per_chunk": [50, 60]}}
    assert compare.verdict(before, lower, "cpu_us_per_chunk") == "better"


def test_streams_ask_for_different_lengths_around_the_cases_own() -> None:
    import bench_requests

    made = bench_requests.lengths(plan.paced(64))
    assert min(made) == 25
    assert max(made) == 75
    assert sum(made) == 50 * len(made)
    assert set(bench_requests.lengths(plan.UNSTREAMED)) == {100}


def test_the_load_generator_ends_what_never_ends() -> None:
    """A server that accepts and is silent: the request is given up, and said to be."""
    import socket

    import load_generator
    from http_stream import post
    from jobs import ID, Job

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        job = Job("http", "127.0.0.1", port, [post("/", ID)], 2, 0.1, 0.1, [os.getpid()], 0.3)
        begin = time.monotonic()
        done = load_generator.run(job)
    assert time.monotonic() - begin < 5
    assert [sent.wrong for sent in done.sent] == ["no end came"] * 2


def test_errors_that_differ_in_numbers_are_one_kind() -> None:
    errors = [f"request a1f{at}00{at}@5000: {at} of 64 wait, 0x7f{at}" for at in range(9)]
    answers = [Answer(0, 0.0, error=error) for error in errors]
    case = plan.Case("full", streams=1, tokens=2)
    texts: Any = OneTokenACharacter
    wrong, _ = check(answers, [[97, 98]], PIPELINES["ours"], case, texts)
    assert wrong == {"request N@N: N of N wait, N": 9}


def test_the_screen_shows_the_most_frequent_faults_and_counts_the_others() -> None:
    wrong = {"rare": 1, "[c]": 3, "long " * 50: 7, "b": 5, "rarer": 1}
    shown = report._faults({"wrong": wrong, "lost_chunks": 12})
    assert shown.startswith("7 long long")
    assert shown.endswith("…, 5 b, 3 \\[c], 2 of 2 other kinds, (12 chunks)")
    assert len(shown) < 120


def figures_of(first: float) -> Figures:
    """Figures of one stream whose first token took `first` ms."""
    answer = Answer(0, 1.0, [1.0 + first / 1e3], ["a"])
    load = Load(begin=0.5, end=2.0)
    return evaluate(load, [answer], {}, plan.FIRST_TOKEN)


def test_a_first_tokens_time_is_held_against_triton_alone_of_the_same_round() -> None:
    rounds = [{"ours": figures_of(o), "triton": figures_of(t)} for o, t in [(3, 1), (9, 4)]]
    for turn in rounds:
        add_to_floor(turn)
    ours = summary([turn["ours"] for turn in rounds])
    assert ours["ttft_p50_added"] == pytest.approx(3.5)
    assert ours["spread"]["ttft_p99_added"] == pytest.approx([2, 5])
    assert summary([turn["triton"] for turn in rounds])["ttft_p50_added"] is None


def test_each_part_of_a_long_stream_has_its_own_cpu() -> None:
    case = plan.of_length(10_000)
    assert case.whole
    answer = Answer(0, 0.0, [1.1, 1.2, 1.5, 2.5], ["a"] * 4)
    marks = [(2.0, {7: 0.3}), (3.0, {7: 0.8})]
    load = Load(begin=1.0, end=3.0, cpu_begin={7: 0.0}, cpu_end={7: 0.8}, marks=marks)
    figures = evaluate(load, [answer], {7: "tritonserver"}, case)
    assert figures.first_tenth_us_per_chunk == pytest.approx(100_000)
    assert figures.last_tenth_us_per_chunk == pytest.approx(500_000)


def test_streams_of_one_length_differ_in_it_alone() -> None:
    import bench_requests

    cases = [plan.of_length(tokens) for tokens in plan.LENGTHS]
    assert len({(c.streams, c.pace_us, c.protocol, c.pipelines) for c in cases}) == 1
    assert set(bench_requests.lengths(cases[-1])) == {10_000}
    in_window = cases[-1].seconds * 1e6 / cases[-1].pace_us
    started = cases[-1].warm_seconds * 1e6 / cases[-1].pace_us
    assert in_window + started < 10_000


def test_a_requests_cost_and_a_chunks_are_told_apart() -> None:
    measured = {
        plan.of_length(tokens).name: {
            "ours": {
                "cpu_us_per_chunk": 20 + 500 / tokens,
                "requests_per_s": 4_000 / tokens,
                "chunks_per_s": 4_000,
                "first_tenth_us_per_chunk": 19,
                "last_tenth_us_per_chunk": 21,
            }
        }
        for tokens in plan.LENGTHS
    }
    found = lengths.by_length(measured)["ours"]
    assert found["request_us"] == pytest.approx(500)
    assert found["chunk_us"] == pytest.approx({"100": 20, "1000": 20, "10000": 20})
    assert lengths.by_length({}) == {}


def test_tokenizing_is_held_against_the_raw_library_by_cpu_and_not_by_the_clock() -> None:
    case = plan.Case("long", 1, streamed=False, prompt_tokens=3_000)
    load = Load(begin=0.0, end=2.0, cpu_begin={7: 0.0, 8: 0.0}, cpu_end={7: 0.5, 8: 1.0})
    pids = {7: "preprocessing", 8: "tritonserver"}
    answers = [Answer(0, 0.0, [1.0], ["a"])]
    elsewhere = {7: "front", 8: "tritonserver"}
    turn = {name: evaluate(load, answers, at, case) for name, at in [("a", pids), ("b", elsewhere)]}
    hold_against_raw(turn, 12_000.0)
    assert turn["a"].of_raw_library == pytest.approx(0.5)
    assert turn["b"].of_raw_library is None

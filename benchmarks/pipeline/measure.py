"""One case on one server: the load in a process of its own, then figures from what came."""

import bisect
import pickle
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import bench_requests
from accounting import memory, processes
from arrivals import Answer, Value, read
from jobs import Job, Load
from plan import Case
from repositories import Pipeline
from texts import Texts

from trellis.server.process import Server

LOAD = Path(__file__).parent / "load_generator.py"
PARTS = 10  # of a window within long streams
NUMBER = re.compile(r"\b(?:0x)?[0-9a-f]*\d[0-9a-f]*\b|\d+")  # also ids and addresses, hexadecimal


@dataclass
class Figures:
    """One measurement; times in ms unless named otherwise, None where there is none."""

    cpu_us_per_chunk: float | None
    cpu_us_per_token: float | None
    cpu_ms_per_request: float | None
    chunks_per_s: float
    tokens_per_s: float
    requests_per_s: float
    prompt_tokens_per_s: float
    ttft_p50: float | None
    ttft_p99: float | None
    itl_p50: float | None
    itl_p99: float | None
    request_p50: float | None
    cores: float
    cores_by_process: dict[str, float]
    load_generator_cores: float
    memory_mib: float
    requests: int
    lost_chunks: int
    ttft_p50_added: float | None = None  # to Triton alone's of the same round
    ttft_p99_added: float | None = None
    of_raw_library: float | None = None  # prompt tokens a CPU second of `preprocessing`, over it
    first_tenth_us_per_chunk: float | None = None  # CPU, of the window within long streams
    last_tenth_us_per_chunk: float | None = None
    wrong: dict[str, int] = field(default_factory=dict)  # what was wrong -> how many requests

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def measure(server: Server, pipeline: Pipeline, case: Case, texts: Texts) -> Figures:
    """Run one case once. Raises RuntimeError if the load generator fails."""
    pids = processes(server.process.pid)
    if server.gateway is not None:
        pids[server.gateway.pid] = "front"
    settings = server.settings
    job = Job(
        protocol=case.protocol,
        host="127.0.0.1",
        port=settings.http_port if case.protocol == "http" else settings.grpc_port,
        requests=bench_requests.requests(case, pipeline, texts),
        streams=case.streams,
        warm_seconds=case.warm_seconds,
        seconds=case.seconds,
        pids=list(pids),
        drain_seconds=case.drain_seconds,
        parts=PARTS if case.whole else 1,
    )
    load = generate(job)
    answers = [read(sent, case.protocol) for sent in load.sent]
    figures = evaluate(load, answers, pids, case)
    figures.memory_mib = memory(pids)
    expected = [texts.answer(case.language)[:n] for n in bench_requests.lengths(case)]
    figures.wrong, figures.lost_chunks = check(answers, expected, pipeline, case, texts)
    return figures


def generate(job: Job) -> Load:
    """Have a process of its own do the job."""
    done = subprocess.run(
        [sys.executable, str(LOAD)], input=pickle.dumps(job), stdout=subprocess.PIPE, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"the load generator ended with status {done.returncode}")
    load: Load = pickle.loads(done.stdout)
    return load


def evaluate(load: Load, answers: Sequence[Answer], pids: dict[int, str], case: Case) -> Figures:
    """Figures of what fell into the window."""
    seconds = load.end - load.begin
    cores: dict[str, float] = {}
    for pid, name in pids.items():
        used = load.cpu_end.get(pid, 0.0) - load.cpu_begin.get(pid, 0.0)
        cores[name] = cores.get(name, 0.0) + used / seconds
    cpu = sum(cores.values()) * seconds
    inside = [_inside(answer.times, load) for answer in answers]
    chunks = sum(inside)
    asked = bench_requests.lengths(case)
    tokens = sum(
        asked[answer.request] * part / len(answer.times)
        for answer, part in zip(answers, inside, strict=True)
        if part
    )
    ended = [a for a in answers if a.times and load.begin <= a.times[-1] < load.end]
    first = [1e3 * (a.times[0] - a.sent) for a in answers if _inside(a.times[:1], load)]
    gaps = [
        1e3 * (later - earlier)
        for a in answers
        for earlier, later in zip(a.times, a.times[1:], strict=False)
        if load.begin <= later < load.end
    ]
    whole = sorted(1e3 * (a.times[-1] - a.sent) for a in ended)
    streamed = case.streamed
    parts = _parts(load, answers) if case.whole else [None]
    return Figures(
        cpu_us_per_chunk=1e6 * cpu / chunks if chunks and streamed else None,
        cpu_us_per_token=1e6 * cpu / tokens if tokens and streamed else None,
        cpu_ms_per_request=1e3 * cpu / len(ended) if ended else None,
        chunks_per_s=chunks / seconds,
        tokens_per_s=tokens / seconds,
        requests_per_s=len(ended) / seconds,
        prompt_tokens_per_s=len(ended) * case.prompt_tokens / seconds,
        ttft_p50=_percentile(first, 50) if streamed else None,
        ttft_p99=_percentile(first, 99) if streamed else None,
        itl_p50=_percentile(gaps, 50),
        itl_p99=_percentile(gaps, 99),
        request_p50=_percentile(whole, 50),
        cores=cpu / seconds,
        cores_by_process=cores,
        load_generator_cores=load.own_cpu / seconds,
        memory_mib=0.0,
        requests=len(answers),
        lost_chunks=0,
        first_tenth_us_per_chunk=parts[0],
        last_tenth_us_per_chunk=parts[-1],
    )


def _parts(load: Load, answers: Sequence[Answer]) -> list[float | None]:
    """µs of CPU a chunk in each part of the window."""
    times = sorted(when for answer in answers for when in answer.times)
    found: list[float | None] = []
    begin, before = load.begin, load.cpu_begin
    for end, after in load.marks:
        chunks = bisect.bisect_left(times, end) - bisect.bisect_left(times, begin)
        used = sum(after[pid] - before.get(pid, 0.0) for pid in after)
        found.append(1e6 * used / chunks if chunks else None)
        begin, before = end, after
    return found


def check(
    answers: Sequence[Answer],
    expected: Sequence[Sequence[int]],
    pipeline: Pipeline,
    case: Case,
    texts: Texts,
) -> tuple[dict[str, int], int]:
    """What was wrong with how many requests, and how many chunks never came.

    A pipeline that is exact must give the text of the tokens; Triton alone, the ids; the others,
    as many chunks as tokens. Faults that differ in numbers alone are one kind.
    """
    whole = [texts.tokenizer.decode(list(ids)) for ids in expected]
    wrong: dict[str, int] = {}
    lost = 0
    for answer in answers:
        ids = expected[answer.request]
        fault = NUMBER.sub("N", answer.error)
        if not pipeline.checked:
            wrong |= {fault: wrong.get(fault, 0) + 1} if fault else {}
            continue
        if case.streamed and not pipeline.pace_in_seed and len(answer.times) < len(ids):
            lost += len(ids) - len(answer.times)
            fault = fault or "chunks lost"
        right: Value | None = whole[answer.request] if pipeline.exact else None
        if not pipeline.takes_text:
            right = list(ids)
        if not fault and right is not None and not _equal(answer.joined, right):
            fault = "wrong text"
        if fault:
            wrong[fault] = wrong.get(fault, 0) + 1
    return wrong, lost


def _equal(got: Value, right: Value) -> bool:
    """Whether they are the same; an unstreamed answer of ids has the prompt in front."""
    return got == right or (isinstance(right, list) and got[-len(right) :] == right)


def _inside(times: Sequence[float], load: Load) -> int:
    return sum(load.begin <= when < load.end for when in times)


def _percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that so many percent do not exceed."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

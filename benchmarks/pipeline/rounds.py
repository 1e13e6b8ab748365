"""Rounds: each pipeline takes its turn in each, so that the machine's noise hits all alike."""

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure import Figures, measure
from plan import Case
from raw import tokens_per_cpu_second
from repositories import PIPELINES, Pipeline, Setting, real_engine
from texts import opened

from support.standin import build_standin
from support.tokenizer_folders import Folders
from trellis.server.ports import free_ports
from trellis.server.process import Server
from trellis.server.settings import ServerFailed, ServerSettings

Measured = dict[str, dict[str, dict[str, Any]]]  # case -> pipeline -> figure -> value
Say = Callable[[str], None]


@dataclass
class Bench:
    """A folder to work in, how many rounds, and what is added to every server's command line."""

    folder: Path
    rounds: int
    say: Say
    extra: tuple[str, ...] = ()
    ready_seconds: dict[str, float] = field(default_factory=dict)  # pipeline -> until ready
    # Case -> the library's prompt tokens a CPU second.
    raw: dict[str, float] = field(default_factory=dict)
    _settings: dict[str, Setting] = field(default_factory=dict)
    pipelines: dict[str, Pipeline] = field(default_factory=lambda: dict(PIPELINES))

    def run(self, cases: Sequence[Case], pipelines: Sequence[str]) -> Measured:
        """Measure every case; servers of one tokenizer stand side by side."""
        measured: Measured = {}
        for kind in dict.fromkeys(case.tokenizer for case in cases):
            of_kind = [case for case in cases if case.tokenizer == kind]
            wanted = {name for case in of_kind for name in case.pipelines}
            names = [name for name in pipelines if name in wanted]
            with self._servers(kind, names) as (setting, servers):
                for case in of_kind:
                    taking_part = [name for name in names if name in case.pipelines]
                    measured[case.name] = self._case(case, taking_part, setting, servers)
        return measured

    def real(self, engine: str, tokenizer: str, tokenizer_dir: str) -> None:
        """Have `run` know the pipeline of a real engine: at its own pace, answers unchecked."""
        build, texts = real_engine(Path(engine), tokenizer, tokenizer_dir)
        self.pipelines = {"engine": Pipeline("engine", engine, build, checked=False, front=True)}
        self._settings = {tokenizer: Setting(self.folder, Path(), tokenizer, Path(), texts)}

    def _case(
        self, case: Case, names: Sequence[str], setting: Setting, servers: dict[str, Server]
    ) -> dict[str, dict[str, Any]]:
        turns: dict[str, list[Figures]] = {name: [] for name in names}
        raw = []
        for at in range(self.rounds):
            self.say(f"{case.name}: round {at + 1} of {self.rounds}")
            turn = {
                name: measure(servers[name], self.pipelines[name], case, setting.texts)
                for name in names
            }
            add_to_floor(turn)
            if case.prompt_tokens > 1000:
                rate = tokens_per_cpu_second(case, setting.texts, setting.tokenizer_dir)
                raw += [] if rate is None else [rate]
                hold_against_raw(turn, rate)
            for name in names:
                turns[name].append(turn[name])
        self.raw |= {case.name: statistics.median(raw)} if raw else {}
        return {name: summary(figures) for name, figures in turns.items()}

    @contextlib.contextmanager
    def _servers(
        self, kind: str, names: Sequence[str]
    ) -> Iterator[tuple[Setting, dict[str, Server]]]:
        setting = self.setting(kind)
        with contextlib.ExitStack() as stack:
            servers: dict[str, Server] = {}
            for name in names:
                self.say(f"starting {name} ({kind})")
                servers[name] = stack.enter_context(self.start(name, setting))
            yield setting, servers

    def setting(self, kind: str) -> Setting:
        """The files that the repositories of one tokenizer_type are made from."""
        if kind in self._settings:
            return self._settings[kind]
        folder = self.folder / kind
        folder.mkdir(parents=True, exist_ok=True)
        vocabularies = self.folder / "vocabularies"
        vocabularies.mkdir(exist_ok=True)
        tokenizer_dir, texts = opened(kind, Folders(vocabularies))
        library = build_standin(self.folder / "backends")
        return Setting(folder, library, kind, tokenizer_dir, texts())

    @contextlib.contextmanager
    def start(self, name: str, setting: Setting) -> Iterator[Server]:
        """A ready server of one pipeline. Raises ServerFailed with the end of its log."""
        repository = setting.folder / name
        if not repository.exists():
            self.pipelines[name].build(setting, repository)
        http, grpc, metrics = free_ports(3)
        log = setting.folder / f"{name}.log"
        front = self.pipelines[name].front
        settings = ServerSettings(
            repository, http, grpc, metrics, extra=self.extra, http_gateway=front
        )
        with log.open("wb") as output, Server(settings, output) as server:
            try:
                self.ready_seconds.setdefault(name, server.wait_ready())
            except ServerFailed as error:
                end = log.read_text(errors="replace")[-3000:]
                raise ServerFailed(f"{name}: {error}\n{end}") from None
            yield server


@contextlib.contextmanager
def bench(
    rounds: int, say: Say, folder: Path | None = None, extra: tuple[str, ...] = ()
) -> Iterator[Bench]:
    """A Bench in `folder`, or in one that goes away afterwards."""
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trellis-bench-")))
        yield Bench(folder.resolve(), rounds, say, extra)


def add_to_floor(turn: Mapping[str, Figures]) -> None:
    """Of one round: how much later each pipeline's first token comes than Triton alone's, in ms."""
    floor = turn.get("triton")
    for name, figures in turn.items():
        if floor is None or name == "triton":
            continue
        if floor.ttft_p50 is not None and figures.ttft_p50 is not None:
            figures.ttft_p50_added = figures.ttft_p50 - floor.ttft_p50
        if floor.ttft_p99 is not None and figures.ttft_p99 is not None:
            figures.ttft_p99_added = figures.ttft_p99 - floor.ttft_p99


def hold_against_raw(turn: Mapping[str, Figures], rate: float | None) -> None:
    """Of one round: prompt tokens a CPU second of `preprocessing`, over the library's `rate`.

    Not where it hardly ran: the gateway encodes short prompts itself.
    """
    for figures in turn.values():
        used = figures.cores_by_process.get("preprocessing", 0.0)
        if rate and used > 0.1 * figures.cores:
            figures.of_raw_library = figures.prompt_tokens_per_s / used / rate


def summary(turns: Sequence[Figures]) -> dict[str, Any]:
    """Medians over the rounds; `spread` has the least and the most of each; faults add up."""
    found: dict[str, Any] = {"spread": {}, "wrong": {}}
    for name, value in turns[0].as_dict().items():
        values = [turn.as_dict()[name] for turn in turns]
        if name == "wrong":
            for turn in turns:
                for fault, count in turn.wrong.items():
                    found["wrong"][fault] = found["wrong"].get(fault, 0) + count
        elif isinstance(value, dict):
            keys = {key for turn in turns for key in turn.cores_by_process}
            found[name] = {
                key: statistics.median(turn.cores_by_process.get(key, 0.0) for turn in turns)
                for key in sorted(keys)
            }
        elif name in ("lost_chunks", "requests"):
            found[name] = sum(values)
        else:
            numbers = [number for number in values if isinstance(number, int | float)]
            found[name] = statistics.median(numbers) if numbers else None
            if numbers:
                found["spread"][name] = [min(numbers), max(numbers)]
    return found

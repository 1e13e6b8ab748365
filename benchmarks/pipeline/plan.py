"""What is measured: cases, and which pipelines take part in each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

ALL = ("triton", "do-nothing", "reference", "ours", "ours-front", "ours-keyed", "ours-python")
TEXTS = (
    "reference",
    "ours",
    "ours-front",
    "ours-keyed",
)  # those that tokenize: the others do not differ
SAMPLING = (
    ("top_k", 20),
    ("top_p", 0.95),
    ("temperature", 0.5),
    ("repetition_penalty", 1.2),
    ("random_seed", 42),
)


@dataclass(frozen=True)
class Case:
    """One load. Streams of different lengths around `tokens`; unstreamed answers all have it.

    `pace_us` is the time of an engine's step, in which every stream gets its token; 0 is an engine
    that answers at once. `whole`: streams of exactly `tokens`, started together and measured once,
    over the longest time that lies within all of them.
    """

    name: str
    streams: int = 64
    streamed: bool = True
    tokens: int = 100
    prompt_tokens: int = 45
    language: str = "en"
    tokenizer: str = "llama"
    protocol: str = "http"
    pace_us: int = 0
    parameters: tuple[tuple[str, float], ...] = ()
    pipelines: tuple[str, ...] = ALL
    seconds: float = 1.5
    drain_seconds: float = 10.0
    whole: bool = False

    @property
    def warm_seconds(self) -> float:
        """Until streams start and end evenly: as long as one takes, within bounds."""
        if self.whole:
            return 0.2
        return 0.4 + min(1.0, self.tokens * self.pace_us / 1e6)


def paced(streams: int) -> Case:
    """A rate that every pipeline holds: 3,200 chunks/s in all, but 200 for one stream alone."""
    pace = max(5_000, streams * 1_000_000 // 3_200)
    tokens = min(100, 1_000_000 // pace)  # a stream lasts about a second
    return Case(f"{streams} streams, paced", streams, pace_us=pace, tokens=tokens)


# At once, since a step's length would hide what is shorter; few tokens, since Triton's HTTP front
# end drops chunks that outrun it.
FIRST_TOKEN = Case("1 stream, first token", 1, tokens=8, seconds=2.0)
UNSTREAMED = Case("unstreamed", 16, streamed=False)
HTTP_FULL = Case("64 streams, at once", 64, pipelines=tuple(p for p in ALL if p != "triton"))
NO_FRONT = tuple(p for p in ALL if p != "ours-front")
NO_REFERENCE = tuple(p for p in ALL if p != "reference")
LENGTHS = (10, 100, 1_000, 10_000)
GRPC_FULL = Case("64 streams, at once, gRPC", 64, protocol="grpc", pipelines=NO_FRONT)


def of_length(tokens: int) -> Case:
    """Streams that differ from one another's in their length alone: 4,000 chunks/s in all."""
    name, pace = f"4 streams of {tokens:,} tokens, paced", 1_000
    case = Case(name, 4, tokens=tokens, pace_us=pace, pipelines=NO_REFERENCE, seconds=3.0)
    whole = tokens * pace / 1e6
    return replace(case, whole=True, seconds=0.96 * whole) if whole > case.seconds else case


def quick() -> list[Case]:
    """A few cases, in a minute or two."""
    return [paced(64), GRPC_FULL, UNSTREAMED]


def default() -> list[Case]:
    """The cases of a report."""
    few = replace(UNSTREAMED, pipelines=TEXTS, tokens=16)
    return [
        *(paced(streams) for streams in (1, 16, 64, 256)),
        FIRST_TOKEN,
        HTTP_FULL,
        GRPC_FULL,
        replace(GRPC_FULL, name="1 stream, at once, gRPC", streams=1),
        replace(GRPC_FULL, name="64 streams of 1 token, gRPC", tokens=1),
        replace(GRPC_FULL, name="4 streams of 10,000, gRPC", streams=4, tokens=10_000),
        *(of_length(tokens) for tokens in LENGTHS),
        UNSTREAMED,
        replace(UNSTREAMED, name="unstreamed, sampling", parameters=SAMPLING, pipelines=ALL[1:]),
        replace(paced(64), name="64 streams, Korean", language="ko", pipelines=TEXTS),
        replace(UNSTREAMED, name="unstreamed, Korean", language="ko", pipelines=TEXTS),
        *(
            replace(
                few,
                name=f"prompts of {tokens:,}, {language}",
                prompt_tokens=tokens,
                language=language,
                streams=4 if tokens > 5_000 else 16,
                seconds=4.0 if tokens > 5_000 else 1.5,
            )
            for tokens in (2_000, 30_000)
            for language in ("en", "ko")
        ),
    ]


def real() -> list[Case]:
    """The cases of a real engine, which makes its own pace."""
    slow = {"tokens": 32, "seconds": 10.0, "drain_seconds": 120.0, "pipelines": ("engine",)}
    loads = [Case(f"{streams} streams", streams) for streams in (1, 16, 64)]
    return [replace(case, **slow) for case in (*loads, UNSTREAMED)]  # type: ignore[arg-type]


def tokenizers(types: Sequence[str]) -> list[Case]:
    """Two cases for each tokenizer_type, in both languages."""
    return [
        replace(
            case,
            name=f"{case.name}, {language}, {kind}",
            tokenizer=kind,
            language=language,
            pipelines=("reference", "ours", "ours-front"),
        )
        for kind in types
        for language in ("en", "ko")
        for case in (paced(64), replace(UNSTREAMED, prompt_tokens=2_000))
    ]

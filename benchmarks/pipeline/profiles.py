"""Where the time goes: flame graphs of each Python process, and perf's of the server.

python benchmarks/pipeline/profiles.py ours do-nothing [--case "64 streams, at once, gRPC"]
python benchmarks/pipeline/profiles.py ours-front --case "64 streams, paced" --case unstreamed

py-spy samples the models' processes and the HTTP gateway, native frames included; perf, where it is
there and allowed, samples the whole tree: by process, library and symbol.
"""

import contextlib
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import checkout
import plan
import typer
from measure import measure
from repositories import PIPELINES
from rounds import bench
from texts import Texts

from trellis.server.process import Server

SECONDS = 8  # each process, and perf
RATE = 250
DEFAULT = plan.GRPC_FULL.name


def main(
    pipelines: Annotated[list[str], typer.Argument(help="which of them")],
    case: Annotated[
        list[str] | None, typer.Option(help=f"under which load, or loads; without, {DEFAULT}")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder")] = checkout.ROOT / "benchmarks" / "profiles",
) -> None:
    """Load each pipeline, sample it meanwhile."""
    out.mkdir(parents=True, exist_ok=True)
    known = {each.name: each for each in plan.default()}
    wanted = case or [DEFAULT]
    if unknown := [name for name in wanted if name not in known]:
        sys.exit(f"profiles: no case {', '.join(unknown)}; known: {'; '.join(known)}")
    loads = [known[name] for name in wanted]
    with bench(1, lambda text: print(text, file=sys.stderr)) as it:
        setting = it.setting(loads[0].tokenizer)
        for name in pipelines:
            with it.start(name, setting) as server:
                for load in loads:
                    print(f"{name}: {load.name}", file=sys.stderr)
                    _profile(server, name, load, setting.texts, out)


def _profile(server: Server, name: str, load: plan.Case, texts: Texts, out: Path) -> None:
    """One load: a second to warm up, then sampled."""
    measure(server, PIPELINES[name], replace(load, seconds=1.0), texts)
    label = "-".join(load.name.replace(",", "").split())
    pythons = server.stubs()
    if server.gateway is not None:
        pythons[server.gateway.pid] = "front"
    stem = out / f"{name}-{label}"
    sampling = threading.Thread(target=_sample, args=(server.process.pid, pythons, stem))
    sampling.start()
    measure(server, PIPELINES[name], replace(load, seconds=SECONDS * (len(pythons) + 1.5)), texts)
    sampling.join()


def _sample(server: int, pythons: dict[int, str], stem: Path) -> None:
    """py-spy on every Python process, perf on all; one after another, while the load runs."""
    for pid, what in pythons.items():
        _py_spy(pid, stem.with_name(f"{stem.name}-{what}.svg"))
    _perf([server, *pythons], stem.with_name(f"{stem.name}-perf.txt"))


def _py_spy(pid: int, target: Path) -> None:
    command = [str(Path(sys.executable).parent / "py-spy"), "record", "--pid", str(pid)]
    command += ["--native", "--rate", str(RATE), "--duration", str(SECONDS)]
    command += ["--output", str(target), "--format", "flamegraph"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"py-spy {pid}: {done.stderr.strip()}", file=sys.stderr)
    elif target.exists():  # its title is the command, with folders of this machine
        target.write_text(target.read_text().replace(f"{Path(__file__).parents[2]}/", ""))


def _perf(pids: list[int], target: Path) -> None:
    """What perf says of the tree: by process and library, then by symbol."""
    if shutil.which("perf") is None:
        print("no perf here: no profile of the server itself", file=sys.stderr)
        return
    data = target.with_suffix(".data")
    record = ["perf", "record", "-q", "-F", "999", "-p", ",".join(map(str, pids))]
    done = subprocess.run(
        [*record, "-o", str(data), "--", "sleep", str(SECONDS)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(f"perf: {done.stderr.strip()}", file=sys.stderr)
        return
    texts = []
    for sort, least in (("comm,dso", "0.5"), ("comm,dso,symbol", "0.4")):
        report = ["perf", "report", "-i", str(data), "--stdio", "--sort", sort]
        report += ["--percent-limit", least]
        told = subprocess.run(report, capture_output=True, text=True, check=False).stdout
        texts += [" ".join(line.split())[:150] for line in told.splitlines() if "%" in line]
        texts.append("")
    target.write_text("\n".join(texts))
    with contextlib.suppress(OSError):
        data.unlink()


if __name__ == "__main__":
    typer.run(main)

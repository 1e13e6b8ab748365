"""Where the time goes: flame graphs of each Python model's process, and perf's of the server.

python benchmarks/pipeline/profiles.py ours do-nothing [--case "64 streams, at once, gRPC"]

py-spy samples the stubs, native frames included; perf, where it is there and allowed, samples the
whole tree: by process, library and symbol.
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
from trellis.server import Server

SECONDS = 12.0
RATE = 250


def main(
    pipelines: Annotated[list[str], typer.Argument(help="which of them")],
    case: Annotated[str, typer.Option(help="under which load")] = plan.GRPC_FULL.name,
    out: Annotated[Path, typer.Option(help="folder")] = checkout.ROOT / "benchmarks" / "profiles",
) -> None:
    """Load each pipeline, sample it meanwhile."""
    out.mkdir(parents=True, exist_ok=True)
    load = replace(next(c for c in plan.default() if c.name == case), seconds=SECONDS)
    label = "-".join(case.replace(",", "").split())
    with bench(1, lambda text: print(text, file=sys.stderr)) as it:
        setting = it.setting(load.tokenizer)
        for name in pipelines:
            with it.start(name, setting) as server:
                measure(server, PIPELINES[name], replace(load, seconds=1.0), setting.texts)
                sampling = threading.Thread(target=_sample, args=(server, out / f"{name}-{label}"))
                sampling.start()
                measure(server, PIPELINES[name], load, setting.texts)
                sampling.join()


def _sample(server: Server, stem: Path) -> None:
    """py-spy on every stub and perf on the tree, one after another, while the load runs."""
    stubs = server.stubs()
    share = (SECONDS - 1) / (len(stubs) + 1)
    for pid, model in stubs.items():
        _py_spy(pid, share, stem.with_name(f"{stem.name}-{model}.svg"))
    _perf([server.process.pid, *stubs], share, stem.with_name(f"{stem.name}-perf.txt"))


def _py_spy(pid: int, seconds: float, target: Path) -> None:
    command = [str(Path(sys.executable).parent / "py-spy"), "record", "--pid", str(pid)]
    command += ["--native", "--rate", str(RATE), "--duration", str(max(1, int(seconds)))]
    command += ["--output", str(target), "--format", "flamegraph"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"py-spy {pid}: {done.stderr.strip()}", file=sys.stderr)
    elif target.exists():  # its title is the command, with folders of this machine
        target.write_text(target.read_text().replace(f"{Path(__file__).parents[2]}/", ""))


def _perf(pids: list[int], seconds: float, target: Path) -> None:
    """What perf says of the tree: by process and library, then by symbol."""
    if shutil.which("perf") is None:
        print("no perf here: no profile of the server itself", file=sys.stderr)
        return
    data = target.with_suffix(".data")
    record = ["perf", "record", "-q", "-F", "999", "-p", ",".join(map(str, pids))]
    done = subprocess.run(
        [*record, "-o", str(data), "--", "sleep", str(seconds)],
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

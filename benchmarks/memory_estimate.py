# SPDX-License-Identifier: Apache-2.0
"""What preflight estimates of vLLM's memory, beside what vLLM itself logged.

    python benchmarks/memory_estimate.py --model_repo triton_model_repo
    python benchmarks/memory_estimate.py --model_repo triton_model_repo --log launch.log

The first prints the estimate for this machine's GPU, as JSON: sizes in GiB, the cache in tokens.
With a log of a launch on it ("Model loading took", "Available KV cache memory", "KV cache size")
both are set side by side; exit status 1 if one differs by more than --most (10) percent.
"""

import argparse
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from trellis.preflight.gpus import visible_gpus
from trellis.preflight.repository import read_repository
from trellis.preflight.served_checkpoint import read_served
from trellis.preflight.vllm_memory import GIB, VllmMemory, estimate_cpu, estimate_gpu

# What is estimated -> how vLLM says it.
LINES = {
    "weights": re.compile(r"Model loading took ([\d.]+) GiB"),
    "room": re.compile(r"(?:Available KV cache memory: |Explicitly set \()([\d.]+)"),
    "kv_tokens": re.compile(r"KV cache size: ([\d,]+) tokens"),
}


def read_log(text: str) -> dict[str, float]:
    """What vLLM said of itself; the first worker counts, since all have as much."""
    found = {name: line.search(text) for name, line in LINES.items()}
    return {name: float(match[1].replace(",", "")) for name, match in found.items() if match}


def compare(estimate: VllmMemory, logged: dict[str, float]) -> dict[str, dict[str, float]]:
    """For each figure in the log: the estimate, the log's, and percent between them."""
    ours = {
        "weights": estimate.weights / GIB,
        "room": estimate.room / GIB,
        "kv_tokens": float(estimate.kv_tokens),
    }
    return {
        name: {
            "estimate": round(ours[name], 2),
            "vllm": said,
            "percent": round(100 * (ours[name] - said) / said, 1),
        }
        for name, said in logged.items()
    }


def main() -> int:
    """Print; 1 where the log is further away than it may be, or says nothing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model_repo", type=Path, default=Path("triton_model_repo"))
    parser.add_argument("--world_size", type=int, default=1)
    parser.add_argument("--gpu_mib", type=float, help="of memory; default what nvidia-smi says")
    parser.add_argument("--cpu_gib", type=float, help="on a CPU: VLLM_CPU_KVCACHE_SPACE")
    parser.add_argument("--log", type=Path, help="what the launcher printed")
    parser.add_argument("--most", type=float, default=10.0, help="percent")
    options = parser.parse_args()
    served = read_served(read_repository(options.model_repo), options.world_size)
    if options.cpu_gib:
        estimate = estimate_cpu(served, options.cpu_gib)
    else:
        gpus = visible_gpus("")
        if not gpus and not options.gpu_mib:
            parser.error("no GPU here; give --gpu_mib, or --cpu_gib for a CPU")
        total = options.gpu_mib * 2**20 if options.gpu_mib else gpus[0].total
        estimate = estimate_gpu(served, total)
    if options.log is None:
        sizes = {name: getattr(estimate, name) / GIB for name in ("weights", "overhead", "room")}
        shown = {name: round(size, 2) for name, size in sizes.items()}
        print(json.dumps({**shown, "kv_tokens": estimate.kv_tokens, "tensor": served.tensor}))
        return 0
    found = compare(estimate, read_log(options.log.read_text(errors="replace")))
    print(json.dumps(found, indent=1))
    far = [name for name, row in found.items() if abs(row["percent"]) > options.most]
    if far or "kv_tokens" not in found:
        print(f"not within {options.most:g} %: {', '.join(far) or 'no line of it in the log'}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Which GPUs an engine may see: `gpu_device_ids`, within CUDA_VISIBLE_DEVICES.

choose_gpus("1,2", {"CUDA_VISIBLE_DEVICES": "4,5,6"}) -> "5,6"
"""

from collections.abc import Mapping


def choose_gpus(gpu_device_ids: str, environment: Mapping[str, str]) -> str | None:
    """The value for CUDA_VISIBLE_DEVICES, or None to leave it as it is.

    `gpu_device_ids` counts among the GPUs that the environment leaves visible, as it does for
    TensorRT-LLM. Raises ValueError for a number that is none of them, or given twice.
    """
    if not gpu_device_ids:
        return None
    try:
        numbers = [int(part) for part in gpu_device_ids.split(",")]
    except ValueError:
        raise ValueError(f"gpu_device_ids is {gpu_device_ids!r}; use numbers: 0,1") from None
    if len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise ValueError(f"gpu_device_ids is {gpu_device_ids!r}; name each GPU once, from 0")
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    if not visible:
        return ",".join(map(str, numbers))
    names = visible.split(",")
    if max(numbers) >= len(names):
        raise ValueError(
            f"gpu_device_ids is {gpu_device_ids!r}, but CUDA_VISIBLE_DEVICES={visible} leaves"
            f" {len(names)} GPUs: use 0 to {len(names) - 1}"
        )
    return ",".join(names[number] for number in numbers)

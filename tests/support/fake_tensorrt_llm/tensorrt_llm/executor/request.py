"""A LoRA adapter that a request names."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class LoRARequest:
    """Its folder must be there."""

    lora_name: str
    lora_int_id: int
    lora_path: str = ""
    lora_ckpt_source: str = "hf"

    def __post_init__(self) -> None:
        if self.lora_path and not Path(self.lora_path).exists():
            raise ValueError(f"lora_path ({self.lora_path}) does not exist.")

    @property
    def adapter_id(self) -> int:
        return self.lora_int_id

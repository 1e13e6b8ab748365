"""What lies in ENGINE: TensorRT-LLM engines, checkpoints, GGUF files, and what they say."""

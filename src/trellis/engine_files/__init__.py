# SPDX-License-Identifier: Apache-2.0
"""What lies in ENGINE: TensorRT-LLM engines, checkpoints, GGUF files, and what they say."""

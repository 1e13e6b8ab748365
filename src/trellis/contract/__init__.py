# SPDX-License-Identifier: Apache-2.0
"""The tensors that clients and engines exchange: TensorRT-LLM's names and types, by release."""

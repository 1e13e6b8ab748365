# SPDX-License-Identifier: Apache-2.0
"""A Python engine behind `tensorrt_llm`: queue, scheduler, answers, and the engines themselves."""

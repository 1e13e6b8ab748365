# SPDX-License-Identifier: Apache-2.0
"""The engines behind `tensorrt_llm`: one file each, one small interface (`engine.py`)."""

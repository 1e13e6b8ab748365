# SPDX-License-Identifier: Apache-2.0
"""The adapters between Triton and the rest: what each `1/model.py` imports."""

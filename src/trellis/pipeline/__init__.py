# SPDX-License-Identifier: Apache-2.0
"""The way of a prompt and of an answer, from text to ids and back, without Triton and HTTP."""

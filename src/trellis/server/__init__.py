# SPDX-License-Identifier: Apache-2.0
"""Triton as a process: found, started, watched until it is ready, and ended."""

# SPDX-License-Identifier: Apache-2.0
"""Soak: mixed traffic for long, every text checked, and what the server holds afterwards."""

# SPDX-License-Identifier: Apache-2.0
"""Who may ask, and how much: API keys, TLS, names of hosts and pages, ids of requests."""

# SPDX-License-Identifier: Apache-2.0
"""What the gateway counts: a record a request (record.py), and the page of all (page.py)."""

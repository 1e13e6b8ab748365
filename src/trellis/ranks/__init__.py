# SPDX-License-Identifier: Apache-2.0
"""Several ranks of one server, on this machine or on many."""

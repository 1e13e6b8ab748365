# SPDX-License-Identifier: Apache-2.0
"""The demo's engine, SmolLM2-135M from a package, and its repository."""

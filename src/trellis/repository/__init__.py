# SPDX-License-Identifier: Apache-2.0
"""Model repositories: templates, wiring, and how `make repo` puts them together."""

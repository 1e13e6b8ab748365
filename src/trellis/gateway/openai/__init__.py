# SPDX-License-Identifier: Apache-2.0
"""OpenAI's API: a module an endpoint, beside Triton's own paths on the same port."""

# SPDX-License-Identifier: Apache-2.0
"""The HTTP gateway before tritonserver: an ASGI application on uvicorn, in a process of its own.

It lets in what it knows (app.py), writes every request that Triton gets, bounds what a client can
make grow or run (limits.py), and stops the request of a client that leaves. Where it may it does
what the plugins do, and makes the texts of token ids itself.

A request's way: protocol.py and heads.py (HTTP), app.py (paths), generate.py or relays.py,
reading.py and body.py (what is asked), routes.py (which model), triton.py (to it and back),
answers.py and text_answers.py (what the client gets).
"""

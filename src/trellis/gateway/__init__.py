# SPDX-License-Identifier: Apache-2.0
"""The HTTP gateway: a thin relay before tritonserver's HTTP port, in a process of its own.

It notices a client that hangs up and has its request stopped, checks the JSON of `/generate` and
`/generate_stream` before Triton sees it, and gives streams of TensorRT-LLM's own engine the id that
they need. It asks the ensemble that gives token ids and makes their text itself. Only ensembles can
be asked. All else passes as it is, but for the type of a body. A client's connection has one
connection to Triton behind it.

requests.py -> connection.py -> upstream.py is a request's way; doors.py lets it in; models.py,
fields.py and body.py check it; text_answers.py writes its answer.
"""

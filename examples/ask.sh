#!/bin/sh
# Ask over HTTP with curl, once and as a stream: examples/ask.sh http://localhost:8000
set -eu
url=$1

# The whole answer, as one JSON object.
curl --fail-with-body --silent --show-error "$url/v2/models/ensemble/generate" \
  --data '{"text_input": "The capital of France is", "max_tokens": 16, "temperature": 0}'
echo

# The same as a stream (-N: show it as it comes): an event "data: {...}" a chunk.
curl --fail-with-body --silent --show-error -N "$url/v2/models/ensemble/generate_stream" \
  --data '{"text_input": "The capital of France is", "max_tokens": 16, "temperature": 0, "stream": true}'

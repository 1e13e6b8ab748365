"""python log_likelihoods.py CHECKPOINT TOKENIZER LINES: transformers' own word on each line.

LINES is JSON, an object a line: what comes after `context` is `continuation`. Printed is for each
[the sum of its tokens' log probabilities, whether each of them is the likeliest].
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

checkpoint, tokenizer_dir, lines = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
found = []
for line in Path(lines).read_text().splitlines():
    parts = json.loads(line)
    begin = len(tokenizer.encode(parts["context"]))
    ids = torch.tensor(tokenizer.encode(parts["context"] + parts["continuation"]))
    with torch.no_grad():
        log_probs = torch.log_softmax(model(ids[None]).logits[0], -1)[begin - 1 : -1]
    wanted = ids[begin:]
    total = log_probs.gather(1, wanted[:, None]).sum().item()
    found.append([total, bool((log_probs.argmax(-1) == wanted).all())])
print(json.dumps({"lines": found}))

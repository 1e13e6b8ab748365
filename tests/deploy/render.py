"""Renders the chart, or reads a file, and holds what comes to the schemas of Kubernetes.

Run by the Python of .venv-deploy, which has Helm: `render.py VALUES` with JSON, or a file's path.
Prints the documents as JSON; exit status 1 and why for one that does not fit.
"""

import json
import sys
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import yaml

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "trellis"
KUBERNETES = ("1.28", "1.31", "1.34")
PODS = ("leaderTemplate", "workerTemplate")


def render(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The documents of a release `t`."""
    found = helm_python.lint(str(CHART))
    if found["errors"] or any(message["severity"] > 1 for message in found["messages"]):
        raise ValueError(f"lint: {found}")
    with helm_python.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values)
        made = chart.render(values, name="t", namespace="serving")
    texts = [text for name, text in made.items() if name.endswith(".yaml")]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def validate(document: dict[str, Any]) -> None:
    """Raise for a document that Kubernetes would not take; of its own kinds alone."""
    group = document["apiVersion"].partition("/")[0]
    if document["kind"] == "LeaderWorkerSet":  # a kind of others: its pods are Kubernetes' own
        for name in PODS:
            validate(_as_deployment(document["spec"]["leaderWorkerTemplate"][name]))
    elif group != "monitoring.coreos.com":
        for version in KUBERNETES:
            kubernetes_validate.validate(document, version, strict=True)


def _as_deployment(template: dict[str, Any]) -> dict[str, Any]:
    labels = template["metadata"]["labels"]
    spec = {"selector": {"matchLabels": labels}, "template": template}
    kind = {"apiVersion": "apps/v1", "kind": "Deployment"}
    return {**kind, "metadata": {"name": "pod"}, "spec": spec}


def main() -> int:
    """Print the documents; the exit status."""
    asked = sys.argv[1]
    try:
        if asked.startswith("{"):
            documents = render(json.loads(asked))
        else:
            documents = list(yaml.safe_load_all(Path(asked).read_text()))
        for document in documents:
            validate(document)
    except Exception as error:  # of three libraries: each says what is wrong
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(documents))
    return 0


if __name__ == "__main__":
    sys.exit(main())

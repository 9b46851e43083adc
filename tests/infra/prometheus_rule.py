"""Writes infra/kuberay/prometheus-rule.yaml: infra/prometheus/rules, as the Prometheus operator takes them.

python -m tests.infra.prometheus_rule
"""

from __future__ import annotations

import yaml

from tests.infra.documents import INFRA, Document, read

TARGET = INFRA / "kuberay" / "prometheus-rule.yaml"

_HEADER = """\
# Made from infra/prometheus/rules by `python -m tests.infra.prometheus_rule`.
# CHANGE the label `release`, as in monitoring.yaml.
"""


def made() -> Document:
    """The rules of all files as one PrometheusRule."""
    files = sorted(INFRA.glob("prometheus/rules/*.yaml"))
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "framelane", "namespace": "framelane", "labels": {"release": "prometheus"}},
        "spec": {"groups": [group for path in files for group in read(path.read_text("utf-8"))[0]["groups"]]},
    }


if __name__ == "__main__":
    text = yaml.safe_dump(made(), sort_keys=False, allow_unicode=True, width=118)
    TARGET.write_text(_HEADER + text, encoding="utf-8")

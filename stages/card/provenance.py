"""Where the generator comes from: an in-toto statement with a SLSA provenance predicate.

It lists what is reproducible: files by SHA-256 and the resolved settings. Git commit, time and machine are not; the
registration adds them in its own `run.json`.
References: in-toto attestation framework, statement v1; SLSA v1 provenance.
"""

from collections.abc import Mapping
from typing import Any

from stages.card.evidence import ONNX, Evidence

BUILD_TYPE = "urn:ganops:pipeline:1"


def statement(evidence: Evidence, configs: Mapping[str, Any], subjects: Mapping[str, str]) -> dict[str, Any]:
    """The statement: `subjects` maps the files handed on to their SHA-256; materials are all that the stages wrote."""
    materials = [
        {"name": f"{stage}/{path}", "digest": {"sha256": sha256}}
        for stage, summary in sorted(evidence.summaries.items())
        for path, sha256 in sorted({**summary.outputs, "summary.json": evidence.digests[stage]}.items())
        if (stage, path) != ("export", ONNX)
    ]
    materials.append({"name": "validate/passed.json", "digest": {"sha256": evidence.digests["validate"]}})
    return {
        "format": 1,
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in sorted(subjects.items())],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(sorted(configs.items())),
                "internalParameters": {"data_hash": evidence.data_hash},
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {"id": BUILD_TYPE},
                "byproducts": [
                    {"name": f"{stage} read {name}", "digest": {"sha256": sha256}}
                    for stage, summary in sorted(evidence.summaries.items())
                    for name, sha256 in sorted(summary.inputs.items())
                ],
            },
        },
    }

"""Measures a challenger and the champion on the same test photographs: the processing job before the verdict.

    python -m training.evaluate --champion-version V --challenger-version V

Reads the answers of the two batch transforms (input/champion, input/challenger), the dataset (input/dataset), the
challenger's package (input/package) and the test photographs (input/photographs). Writes to output/evaluation:

    evaluation.json    every figure; evaluation.schema.json describes it
    predictions.csv    the source of the figures: `training.verdict.comparison.compare` computes them again
    report.html        the same for people, one self-contained file
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np

from model import package
from model.answer import CLASSES
from model.package import PackageError
from model.serve import Counter, cores
from training import container
from training.dataset import layout
from training.dataset.layout import BadDataset, Line
from training.verdict import comparison, report
from training.verdict.bootstrap import Floats
from training.verdict.comparison import Answered

SCHEMA = Path(__file__).parent / "verdict" / "evaluation.schema.json"


AUDITED = 1000
"""Test bins of the random audit from which on they alone judge: they are an unbiased sample that people counted, while
the others have the record's errors, or a recount because the model doubted the record. With fewer, hardly any
challenger could win: one that is better by 0.05 is promoted by 300 photographs in 7 % of simulated runs, by 1,000 in
48 % (docs/experiments.md, "Judging a challenger")."""


class BadAnswer(ValueError):
    """A transform's output for a photograph is not an answer; the message says why."""


def main() -> None:
    flags = container.Arguments(prog="training.evaluate")
    flags.add_argument("--champion-version", required=True)
    flags.add_argument("--challenger-version", required=True)
    a = flags.parse_args()
    given, out = container.processing("input"), container.processing("output/evaluation")
    try:
        evaluate(given, out, a.champion_version, a.challenger_version)
    except (BadDataset, PackageError) as error:
        raise SystemExit(str(error)) from error


def evaluate(given: Path, out: Path, champion: str, challenger: str) -> dict[str, Any]:
    """The whole job on the inputs below `given`: evaluation.json. Raises SystemExit, BadDataset, PackageError."""
    described = layout.summary_of(given / "dataset")
    lines = [line for line in layout.read_index(given / "dataset" / "index.jsonl") if line.split == "test"]
    if not lines:
        raise SystemExit("the dataset has no test photographs")
    audited = [line for line in lines if line.audit]
    if by_audit := len({line.group for line in audited}) >= AUDITED:
        lines = audited
    drift = json.loads((given / "dataset" / "drift.json").read_bytes())
    seen = Answered(
        ids=np.array([line.id for line in lines]),
        sites=np.array([line.site for line in lines]),
        bins=np.array([line.bin for line in lines]),
        quantities=np.array([line.quantity for line in lines]),
        champion=answers(given / "champion", lines, "champion", champion),
        challenger=answers(given / "challenger", lines, "challenger", challenger),
    )
    found = {
        "format": 1,
        "test_set": {
            "digest": layout.digest(lines),
            "photographs": len(lines),
            "bins": len(np.unique(seen.groups)),
            "judged_by": "audit" if by_audit else "records",
            "audited": len(audited),
        },
        "dataset_digest": described["digest"],
        **comparison.compare(seen, champion, challenger),
        "golden": golden(given / "package", challenger),
        "drift": drift_summary(drift),
        "code_version": os.environ.get("BINTALLY_CODE_VERSION", "unknown"),
    }
    jsonschema.validate(found, json.loads(SCHEMA.read_text()))
    out.mkdir(parents=True, exist_ok=True)
    comparison.write(out / "predictions.csv", seen)
    photographs = {path.name: path for path in (given / "photographs").rglob("*") if path.is_file()}
    pictures = {line.id: photographs[name] for line in lines if (name := Path(line.object).name) in photographs}
    (out / "report.html").write_text(report.render(found, seen, pictures, drift, described))
    (out / "evaluation.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    rps = found["paired"]["rps"]
    print(
        f"ranked probability score: gained {rps['difference']:+.4f}, lower bound {rps['lower_bound']:+.4f}", flush=True
    )
    return found


def answers(folder: Path, lines: list[Line], model: str, version: str) -> Floats:
    """The probabilities [N, 7] that a transform wrote below `folder`. Raises SystemExit when one is missing or bad."""
    written = {path.name: path for path in folder.rglob("*.out")}
    names = [f"{Path(line.object).name}.out" for line in lines]
    if missing := [name for name in names if name not in written]:
        raise SystemExit(
            f"the {model}'s answers to {len(missing)} of {len(names)} photographs are missing, first {missing[0]}"
        )
    found, bad = [], []
    for name in names:
        try:
            found.append(parse(written[name].read_bytes(), version))
        except BadAnswer as error:
            bad.append(f"{name}: {error}")
    if bad:
        raise SystemExit(f"{len(bad)} of the {model}'s {len(names)} answers are malformed, first {bad[0]}")
    return np.array(found)


def parse(content: bytes, version: str) -> list[float]:
    """The probabilities of one answer of the endpoint (events/endpoint_answer.json). Raises BadAnswer."""
    try:
        answer = json.loads(content)
        p, by = [float(x) for x in answer["probabilities"]], answer["model_version"]
    except (ValueError, TypeError, KeyError) as error:
        raise BadAnswer(f"not an answer of the endpoint: {type(error).__name__} {error}") from error
    if len(p) != len(CLASSES) or not all(0 <= x <= 1 for x in p) or not math.isclose(sum(p), 1, abs_tol=1e-3):
        raise BadAnswer(f"{len(p)} numbers that are no distribution over {len(CLASSES)} answers")
    if by != version:
        raise BadAnswer(f"answered by {by}, not by {version}")
    return p


def golden(folder: Path, version: str) -> dict[str, Any]:
    """Checks the challenger's golden images with its package, as the endpoint will serve it. Raises PackageError.

    `package_digest`, the SHA-256 of package.json, goes into the registry: a release refuses another package."""
    archive = next(iter(sorted(folder.rglob("model.tar.gz"))), None)
    if archive is None:
        raise SystemExit(f"there is no model.tar.gz in {folder}")
    with tempfile.TemporaryDirectory() as unpacked:
        found = package.unpack(archive, Path(unpacked))
        faults = Counter(found, cores()).faults()
        digest = package.sha256(Path(unpacked) / package.NAME)
    if found.model_version != version:
        faults.append(f"the package is version {found.model_version}, not {version}")
    return {"asked": len(found.golden), "faults": faults, "package_digest": digest}


def drift_summary(drift: dict[str, Any]) -> dict[str, Any]:
    """The sites in drift.json that changed, and how."""
    changed = [{"site": site, "sentence": drift["sites"][site]["sentence"]} for site in drift["flagged"]]
    return {
        "reference": drift["reference"],
        "sites": len([site for site in drift["sites"] if site]),
        "changed": changed,
    }


if __name__ == "__main__":
    with container.failure_told():
        main()

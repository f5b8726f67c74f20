#!/usr/bin/env python3
"""The Python of the retraining stack's jobs: the training environment's, but for a training that shall not end well.

One that diverges (here: by a learning rate of 1, the largest that is taken) and one that lasts until it is stopped
(200 epochs) need no network to do so; tests/training/test_job.py shows both of the real training.
"""

import json
import os
import signal
import sys
from pathlib import Path

PYTHON = Path(__file__).parents[2] / ".venv-train" / "bin" / "python"


def train(job: Path) -> None:
    """Fails or waits as the hyperparameters of this job ask for; returns where they ask for neither."""
    given: dict[str, str] = json.loads((job / "input" / "config" / "hyperparameters.json").read_text())
    if float(given.get("learning-rate", "0")) >= 1:
        (job / "output").mkdir(exist_ok=True)
        (job / "output" / "failure").write_text("epoch 0, step 0: loss is nan: logits up to inf, input up to 2.6")
        raise SystemExit(1)
    if given.get("epochs") == "200":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        signal.pause()


if __name__ == "__main__":
    if sys.argv[1:3] == ["-m", "training.train"]:
        train(Path(os.environ["SM_OPT_ML"]))
    # Beside other workers' processes the threads of one would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.execv(PYTHON, [str(PYTHON), *sys.argv[1:]])

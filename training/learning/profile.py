"""Profiles a training job's first steps: their operations, and their waits for data."""

from __future__ import annotations

import atexit
import json
import os
import statistics
from pathlib import Path

from torch.profiler import profile, schedule

STEPS = 20
"""Maximum number of profiled steps."""
TRACED = range(2, 4)
"""Steps whose every operation is in the trace; in the step before them the profiler warms up."""


class Profile:
    """Receives each step; writes trace.json.gz (for Perfetto or chrome://tracing) and summary.json to a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # it reports the absence of a GPU as an error
        self.folder = folder
        self.steps: list[tuple[float, float, int]] = []
        self.profiler = profile(
            schedule=schedule(wait=TRACED.start - 1, warmup=1, active=len(TRACED), repeat=1),
            on_trace_ready=lambda done: done.export_chrome_trace(str(folder / "trace.json.gz")),
        )
        self.profiler.start()
        self.ended = False
        atexit.register(self.end)  # a process that ends while it traces crashes

    def step(self, waited: float, seconds: float, photographs: int) -> None:
        """Records a step: its seconds, its seconds of waiting for data, and the photographs of all processes."""
        if not self.ended:
            self.steps.append((waited, seconds, photographs))
            self.profiler.step()
            if len(self.steps) == STEPS:
                self.end()

    def end(self) -> None:
        """Writes the results, once: the profiler crashes when it is stopped again."""
        if self.ended:
            return
        self.ended = True
        self.profiler.stop()
        # The trace slows steps down: traced steps are not counted if there are others.
        others = [step for number, step in enumerate(self.steps) if number not in range(TRACED.start - 1, TRACED.stop)]
        if others:
            waited, seconds, photographs = zip(*others, strict=True)
            summary = {
                "steps": len(others),
                "waiting_share": sum(waited) / sum(seconds),
                "median_step_seconds": statistics.median(seconds),
                "images_per_second": sum(photographs) / sum(seconds),
            }
            (self.folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")

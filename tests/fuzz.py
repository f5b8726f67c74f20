"""How long Hypothesis searches: moments in `make test`, MINUTES in `make fuzz`."""

import os
import random
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, seed, settings

EXAMPLES = 10


def search(test: Callable[..., Any], examples: int = EXAMPLES, tests: int = 1) -> None:
    """Runs a test that Hypothesis has given its arguments.

    With FUZZ_MINUTES it runs again and again, from seeds that it prints, for so long that `tests` of its kind take that
    long together; FUZZ_SEED starts from one of the seeds.
    """
    minutes = float(os.environ.get("FUZZ_MINUTES", 0))
    number = int(os.environ.get("FUZZ_SEED", 0)) or (random.SystemRandom().randrange(1 << 32) if minutes else 1)
    until = time.monotonic() + 60 * minutes / tests
    chosen = settings(
        max_examples=500 if minutes else examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(test)
    while True:
        if minutes:
            print(f"FUZZ_SEED={number}", flush=True)
        seed(number)(chosen)()
        number += 1
        if time.monotonic() >= until:
            return

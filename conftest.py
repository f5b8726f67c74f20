"""What every test session needs before anything else is imported."""

import gc

# pytest names a test module by its folders, and would take the folder localsagemaker/ for the package of that name.
import localsagemaker  # noqa: F401

# Modules and models of services live as long as the session: looking through them again and again for garbage took a
# seventh of the unit tests' time.
gc.set_threshold(10_000, 20, 100)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()

"""pytest names a test module by its folders, and would take the folder localsagemaker/ for the package of that name."""

import localsagemaker  # noqa: F401

import sys

# `import openvino` and `import nncf` report to an analytics service by way of this package, and do without where it is
# missing. Python takes None for a module that is not to be found.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

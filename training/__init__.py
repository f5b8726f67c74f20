import model  # noqa: F401  # before openvino and nncf: they report nothing then

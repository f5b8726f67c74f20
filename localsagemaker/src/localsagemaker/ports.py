"""Free ports of this machine."""

import random
import socket

ASSIGNED = range(20_000, 32_768)
"""Below the ports of outgoing connections: a connection, or one that ended a minute ago, may occupy such a port before
the server that it was chosen for has started (Linux: `ip_local_port_range`)."""


def free_port() -> int:
    """A free port. Raises `OSError` when all are taken."""
    for port in random.sample(ASSIGNED, len(ASSIGNED)):
        if not port_taken(port):
            return port
    raise OSError(f"no free port from {ASSIGNED.start} to {ASSIGNED.stop - 1}")


def port_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False

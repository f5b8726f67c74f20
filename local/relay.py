"""A relay from Docker's bridge to the local stack, for containers of `sam local invoke`.

    python -m local.relay

The stack listens on 127.0.0.1, where a container cannot reach it. The relay listens on the bridge's own address, on the
stack's own port, until it is stopped. The stack answers there only while such a container runs, and only to signed
requests (docs/security.md).
"""

import contextlib
import ipaddress
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator

from local.errors import StackError

CHUNK = 65536


class Handler(socketserver.BaseRequestHandler):
    server: "Server"

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.port)) as inner:
            back = threading.Thread(target=pump, args=(inner, self.request), daemon=True)
            back.start()
            pump(self.request, inner)
            back.join()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: str, port: int) -> None:
        self.port = port
        super().__init__((address, port), Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A side that closes ends only its connection; the relay continues."""


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Copies one direction until its end, and shuts the other side down."""
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def bridge_address() -> str:
    """This machine's address on Docker's bridge. Raises StackError without Docker."""
    import docker

    try:
        with contextlib.closing(docker.from_env(timeout=5)) as client:
            found = client.networks.get("bridge").attrs["IPAM"]["Config"][0]
    except (docker.errors.DockerException, OSError) as error:
        raise StackError(f"Docker does not answer: {error}. Start it, then try again") from error
    return str(found.get("Gateway") or ipaddress.ip_network(found["Subnet"])[1])


@contextlib.contextmanager
def relay(address: str, port: int) -> Iterator[str]:
    """Relays `address` to 127.0.0.1 on the same port within the context; yields the stack's URL there."""
    try:
        server = Server(address, port)
    except OSError as error:
        raise StackError(f"cannot listen on {address}:{port} for the container: {error.strerror}") from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield url_of(address, port)
    finally:
        server.shutdown()
        server.server_close()


def url_of(address: str, port: int) -> str:
    return f"http://{address}:{port}"


def main() -> None:
    from local.stack import Local

    try:
        with relay(bridge_address(), Local.from_environment().port) as url:
            print(f"Relaying {url} to the local stack until Ctrl-C", flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        return
    except StackError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()

"""A stream of TCP from h1 to h2: senders leave segmentation to the kernel, so a packet is large."""

import hashlib
import random
import socket
import threading
import time

from chaos.netns import inside

_FRAME = 1448  # bytes of payload, at an MTU of 1500


def transferred(two_hosts, size):
    """Seconds that so many bytes took; they came as they were sent."""
    sent, got = random.Random(1).randbytes(size), hashlib.sha256()

    def receive():
        with server.accept()[0] as peer:
            while block := peer.recv(1 << 20):
                got.update(block)

    server = inside(two_hosts.path("h2"), lambda: socket.create_server(("10.0.0.2", 5001)))
    with server:
        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        begun = time.monotonic()
        client = inside(two_hosts.path("h1"), lambda: socket.create_connection(("10.0.0.2", 5001)))
        with client:
            client.sendall(sent)
        thread.join(30)
        took_s = time.monotonic() - begun
    assert got.digest() == hashlib.sha256(sent).digest()
    return took_s


def frames_of(size):
    """The fewest frames that so many bytes need."""
    return size / _FRAME

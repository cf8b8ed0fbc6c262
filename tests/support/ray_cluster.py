"""A Ray cluster on this machine, each node in processes of its own."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from cluster_programs import end, start, wait

# Ray asks for a token. This one is of this process and its nodes, and in no file.
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_AUTH_MODE", "token")
TRIES = 5  # to start a node
SECONDS = 120  # until the head is there
NODE = ["--object-store-memory", "200000000", "--node-ip-address", "127.0.0.1", "--block"]


@contextlib.contextmanager
def ray_cluster(folder, caches, cpus=1):
    """A node of `cpus` cores for each cache folder. Gives the address; the head has no core.

    At the end no process of them is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Sockets have short names only, so their folder cannot be the test's.
    short = tempfile.mkdtemp(prefix="ray")
    started = []
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        port = address.rpartition(":")[2]
        head = ["--head", "--port", port, "--num-cpus", "0", "--include-dashboard", "false"]
        started.append(start_node(folder, {}, *head, "--temp-dir", short))
        wait(lambda: _is_up(folder, ""), started, SECONDS)
        for n, cache in enumerate(caches):  # one by one: they choose the names of their sockets
            for _ in range(TRIES):
                started.append(join(folder, address, n, cache, cpus))
                if _is_in_time(folder, n, started[-1]):
                    break
        yield address
    finally:
        end(started)
        shutil.rmtree(short, ignore_errors=True)


def join(folder, address, n, cache, cpus=1):
    """A further node of the cluster at this address, as a process to be ended by `end`."""
    variables = {"PALMKIT_CACHE": str(cache), "TEST_WORKER": str(n)}
    return start_node(folder, variables, "--address", address, "--num-cpus", str(cpus))


def start_node(folder, variables: dict, *arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, *NODE]
    log = f"ray{variables.get('TEST_WORKER', '')}.log"
    return start(command, folder, log, {"RAY_USAGE_STATS_ENABLED": "0", **variables})


def _is_in_time(folder, n, node: subprocess.Popen) -> bool:
    """Whether a node is up. Ray gives one up that is not within 30 s, as on a busy machine."""
    while node.poll() is None:
        if _is_up(folder, n):
            return True
        time.sleep(0.1)
    return False


def _is_up(folder, n) -> bool:
    path = folder / f"ray{n}.log"
    return path.is_file() and "Ray runtime started" in path.read_text()

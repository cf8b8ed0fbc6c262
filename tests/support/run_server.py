"""Starts commands of palmkit in processes that have imported it already, five seconds sooner.

It reads requests from stdin, one line of JSON each, and answers with one line:
{"argv", "env", "output"}: the command in a process of its own; the answer is its id.
{"wait": id}: the answer is its exit status, negative for a signal.
The process is a fork, of this one that has one thread, and begins a session of its own.
"""

import json
import os
import signal
import sys
import tempfile

import open_clip

import palmkit.experiments.engines
import palmkit.experiments.run
import palmkit.results.report
import palmkit_synthetic.tasks
from palmkit.cli import main

IMPORTED = (
    open_clip,  # which a PENGI imports late
    palmkit.experiments.engines,
    palmkit.experiments.run,
    palmkit.results.report,
    palmkit_synthetic.tasks,
)


def serve() -> None:
    """Answer requests. Returns in a process that is to run a command."""
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        child = os.fork()
        if child == 0:
            begin(**request)
            return
        print(child, flush=True)
    os._exit(0)  # at once: taking down so many modules takes seconds


def begin(argv: list[str], env: dict, output: str) -> None:
    os.setsid()
    # A shell may have started the tests in the background, where these signals are ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # the environment has another
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.argv = ["palmkit", *argv]


if __name__ == "__main__":
    serve()
    sys.exit(main(sys.argv[1:]))

"""What docs/engines.md says of joblib's backends. Where such a test fails, joblib has changed.

They take minutes and are no tests of palmkit, so only `make endurance` runs them.
"""

import importlib.util
import subprocess
import sys
import time

import joblib
import pytest
from engine_runs import start_cluster
from faults import count_tries

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not count_tries(0, 1), reason="make endurance"),
]


def test_joblibs_ray_backend_gives_no_result_before_the_last():
    if not importlib.util.find_spec("ray"):
        pytest.skip("the extra `ray` is not installed")
    from ray.util.joblib import register_ray

    register_ray()
    with (
        joblib.parallel_config(backend="ray"),
        pytest.raises(ValueError, match="does not support return_as"),
    ):
        joblib.Parallel(2, return_as="generator_unordered")


WAITS = """
import os, sys, distributed, joblib
def die():
    os.kill(os.getpid(), 9)


client = distributed.Client(sys.argv[1])
with joblib.parallel_config(backend="dask"):
    joblib.Parallel(2)(joblib.delayed(die)() for _ in range(2))
"""


def test_joblibs_dask_backend_waits_for_ever_for_a_killed_task(tmp_path):
    # With one worker, joblib runs the calls itself.
    with start_cluster("dask", tmp_path / "dask", [tmp_path / "cache"] * 2) as address:
        command = [sys.executable, "-c", WAITS, address]
        waiting = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        log = tmp_path / "dask" / "dask_scheduler.log"
        try:
            while log.read_text().count("marked as failed") < 2:  # Dask has given both up
                assert waiting.poll() is None
                time.sleep(0.2)
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(timeout=15)
        finally:
            waiting.kill()
            waiting.wait()

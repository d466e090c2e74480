"""One of several hosts, with two devices each, that runs tasks one after the other.

python tasks_driver.py JOBS COORDINATOR NUM_HOSTS INDEX REPORT

JOBS is a file of JSON: a list of [recipe, argument or null, {key: value}, workdir].
REPORT becomes a list with what each of them returned, and how many images, headers and
descriptors this host has read for it.
"""

import collections
import json
import os
import sys
from pathlib import Path

jobs, coordinator, num_hosts, index, report = sys.argv[1:]
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_ENABLE_X64"] = "1"
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from helpers.hosts import job_config

from multigrain_jax.data import eval_batches
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.main import TASKS
from multigrain_jax.terminal import lets_others_fail

count = collections.Counter()


def counted(name, function):
    def call(*given, **named):
        count[name] += 1
        return function(*given, **named)

    return call


eval_batches.read_for_network = counted("images", eval_batches.read_for_network)
eval_batches.encoded_size = counted("headers", eval_batches.encoded_size)
read = DescriptorIndex.read


def read_counted(self, first, wanted, *, end=None):
    count["rows"] += min(wanted, (len(self) if end is None else end) - first)
    return read(self, first, wanted, end=end)


DescriptorIndex.read = read_counted


def run_all(argv):
    done = []
    for recipe, argument, changes, workdir in json.loads(Path(jobs).read_text()):
        config = job_config(recipe, argument, changes)
        config.distributed.coordinator = coordinator
        config.distributed.num_processes = int(num_hosts)
        config.distributed.process_index = int(index)
        module = __import__(TASKS[config.task], fromlist=["run"])
        count.clear()
        print(f"job: {workdir}", flush=True)
        results = module.run(config, Path(workdir))
        none = {"images": 0, "headers": 0, "rows": 0}
        done.append({"results": results, **none, **count})
        Path(report).write_text(json.dumps(done))
    return 0


# Where one of them fails, the others do not wait for JAX's limit of minutes.
lets_others_fail(failures=())(run_all)([])

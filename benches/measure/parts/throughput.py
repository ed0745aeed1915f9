"""How much one core ships: the agent is pinned to one, the endpoint to another.

The rate is that between the first and the last call that arrived. Whose limit it is shows in how
busy either was meanwhile; on a machine that does other things as well, what the agent ships per
second of CPU is the steadier figure.
"""
import os
import time

from .. import logs
from ..bench import drain
from ..figures import Figure

LEAST = 500
MIB = 2**20
# From what share of its core on a process is what limits the rate.
BUSY = 0.9


def run(bench):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("two cores are needed: one for the agent, one for the endpoint")
    directory = bench.logs()
    size = logs.backlog(bench.tools, bench.work, directory, bench.options.files or 20,
                        (bench.options.size or 2_000) * 1_000_000)
    for agent in bench.agents:
        runs = bench.options.runs if agent.exact else 1
        yield from best(agent, [once(bench, agent, directory, size, cores) for _ in range(runs)])


def once(bench, agent, directory, size, cores):
    """Ships all; returns MiB/s, MiB per CPU second, and how busy agent and endpoint were."""
    with bench.endpoint(agent, core=cores[1]) as endpoint:
        with agent.start(bench.home(), f"{directory}/*.log", endpoint, core=cores[0]) as process:
            begun = time.monotonic()
            used, own = drain(agent, process, endpoint, size), endpoint.cpu()
            elapsed = time.monotonic() - begun if agent.exact else used
            rate = endpoint.bytes / MIB / ((endpoint.last - endpoint.first) / 1e9)
            process.stop()
        return rate, endpoint.bytes / MIB / used, used / elapsed, own / elapsed


def best(agent, runs):
    rate, per_cpu, busy, endpoint = max(runs)
    limit = "the agent's core" if busy > BUSY else "the endpoint" if endpoint > BUSY else "what else the cores did"
    note = f"limited by {limit}: agent {busy:.0%} of its core, endpoint {endpoint:.0%}; best of {len(runs)}"
    yield Figure("throughput", "lines into a null endpoint, one core", rate, "MiB/s", LEAST, least=True,
                 agent=agent.name, note=note)
    yield Figure("throughput", "per CPU second", per_cpu, "MiB", agent=agent.name)

"""The size of the binary and of the deb as they are packaged, and a cold start.

A cold start is that of an agent without any state and with one log of 1 MB; the time runs from the
start of the process until the endpoint has the first call. The median of several.
"""
import statistics
import subprocess
import time

from .. import logs
from ..figures import Figure
from .idle import arrival

BINARY = 10
DEB = 4
START = 50
STARTS = 15


def run(bench):
    packages = bench.options.packages
    if not packages:
        packages = bench.work / "packages"
        subprocess.run([bench.root / "packaging/build", "--output", packages],
                       check=True, stdout=subprocess.DEVNULL)
    deb = next(packages.glob("kinetail_*.deb"), None)
    if not deb:
        raise SystemExit(f"{packages}: no deb")
    tree = bench.work / "tree"
    subprocess.run(["dpkg-deb", "-x", deb, tree], check=True)
    binary = tree / "usr/bin/kinetail"
    yield Figure("size", "binary as packaged", binary.stat().st_size / 1e6, "MB", BINARY)
    yield Figure("size", "deb", deb.stat().st_size / 1e6, "MB", DEB)
    directory = bench.logs()
    logs.backlog(bench.tools, bench.work, directory, 1, 1_000_000)
    for agent in bench.agents:
        times = []
        for _ in range(STARTS):
            with bench.endpoint(agent) as endpoint:
                with agent.start(bench.home(), f"{directory}/*.log", endpoint) as process:
                    times.append(arrival(endpoint, process.started, 60))
                    time.sleep(0.2)
                    process.stop()
        yield Figure("size", "cold start to the first call accepted", statistics.median(times), "ms", START,
                     agent=agent.name, note=f"{min(times):.0f} to {max(times):.0f}")

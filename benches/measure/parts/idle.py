"""What an agent costs that has nothing to do, and how fast it starts with many known files.

1 and 10,000 files of a few lines, all shipped; then a minute of nothing. Then a line is appended to
one of them; then, five times, while the agent is stopped, and the time runs from its start: there
with `max_age: 0`, or a lone line would wait a second for company.
"""
import statistics
import time

from .. import logs
from ..bench import drain
from ..figures import Figure
from .memory import counts

# Resident MiB, and the share of a core in %.
GOALS = {1: (12, 0.1), 10_000: (24, 0.3)}
START = 1_000
STARTS = 5
# What is left of the work before goes on for a moment: commits, connections.
SETTLE = 12


def run(bench):
    for files in counts(bench.options, (1, 10_000)):
        size, paths = logs.idle(bench.logs(), files)
        for agent in bench.agents:
            yield from idle(bench, agent, files, size, paths)
        bench.clear()


def idle(bench, agent, files, size, paths):
    seconds = bench.options.seconds
    memory, share = GOALS.get(files, (None, None))
    size = sum(path.stat().st_size for path in paths)
    home, pattern = bench.home(), f"{paths[0].parent.parent}/*/*.log"
    with bench.endpoint(agent) as endpoint:
        with agent.start(home, pattern, endpoint) as process:
            drain(agent, process, endpoint, size)
            time.sleep(SETTLE)
            before, begun = process.cpu(), time.monotonic()
            time.sleep(seconds)
            used = (process.cpu() - before) / (time.monotonic() - begun) * 100
            resident = process.memory()
            handles, peak = process.descriptors(), process.memory("VmHWM")
            fresh = appended(paths[len(paths) // 2], endpoint)
            process.stop()
        what = f"{files:,} idle file{'s' if files > 1 else ''}"
        yield Figure("idle", f"resident memory, {what}", resident, "MiB", memory, agent=agent.name,
                     note=f"peak {peak:.1f} MiB while they were shipped, {handles} descriptors")
        yield Figure("idle", f"share of a core, {what}", used, "%", share, agent=agent.name,
                     note=f"over {seconds} s")
        yield Figure("idle", f"a fresh line is accepted after, {what}", fresh, "ms", agent=agent.name)
        if files > 1:
            times = [restart(agent, home, pattern, paths[7 * turn % files], endpoint)
                     for turn in range(STARTS)]
            yield Figure("idle", f"start to the first line accepted, {files:,} known files",
                         statistics.median(times), "ms", START, agent=agent.name,
                         note=f"{min(times):.0f} to {max(times):.0f}")


def appended(path, endpoint, deadline=60):
    """Appends a line; returns the milliseconds until the endpoint has it."""
    endpoint.report()
    begun = time.time_ns()
    append(path)
    return arrival(endpoint, begun, deadline)


def restart(agent, home, pattern, path, endpoint):
    """Starts with a line that was appended meanwhile; returns the milliseconds until it is there."""
    append(path)
    endpoint.report()
    with agent.start(home, pattern, endpoint, **agent.immediate) as process:
        taken = arrival(endpoint, process.started, 60)
        time.sleep(2)
        process.stop()
    return taken


def append(path):
    with open(path, "ab") as file:
        file.write(b"a line more than there was, after all this silence\n")


def arrival(endpoint, begun, deadline):
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        told = endpoint.report()
        if told["first_ns"]:
            return (told["first_ns"] - begun) / 1e6
        time.sleep(0.005)
    raise SystemExit(f"no line within {deadline} s")

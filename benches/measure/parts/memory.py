"""Peak resident memory while a backlog drains at full speed, and while the endpoint is dead.

A backlog of 5 GiB in 1 and in 1,000 files, with default settings. Then 10 MB/s into 1,000 files:
once it flows, the endpoint stops in the middle of what it does (connections stay, nobody answers),
and in a second run it is gone (connections are refused). The peak is that of the dead time alone.
"""
import os
import resource
import time

from .. import logs
from ..bench import drain
from ..figures import Figure

DRAINING = 32
DEAD = 24
RATE = 10_000_000
TICKS = 100


def run(bench):
    size = (bench.options.size * 1_000_000) if bench.options.size else 5 * 2**30
    for files in counts(bench.options, (1, 1_000)):
        directory = bench.logs()
        written = logs.backlog(bench.tools, bench.work, directory, files, size)
        for agent in bench.agents:
            yield backlog(bench, agent, directory, files, written)
        bench.clear()
    for agent in bench.agents:
        for gone in (False, True):
            yield from dead(bench, agent, gone)
            bench.clear()


def counts(options, usual):
    """Returns how many files are tried: those asked for, or the usual ones."""
    return (options.files,) if options.files else usual


def backlog(bench, agent, directory, files, size):
    with bench.endpoint(agent) as endpoint:
        begun = time.monotonic()
        with agent.start(bench.home(), f"{directory}/*.log", endpoint) as process:
            used = drain(agent, process, endpoint, size)
            seconds = time.monotonic() - begun
            peak = process.memory("VmHWM")
            process.stop()
        note = (f"{size / 2**30:.1f} GiB in {seconds:.1f} s, {used * 2**30 / size:.2f} CPU s/GiB, "
                f"{endpoint.bytes / size:.1%} of the bytes")
        return Figure("memory", f"peak while a backlog drains, {files:,} files", peak, "MiB", DRAINING,
                      agent=agent.name, note=note)


def dead(bench, agent, gone):
    files = bench.options.files or 1_000
    seconds = bench.options.seconds
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _, paths = logs.idle(bench.logs(), files)
    pattern = f"{paths[0].parent.parent}/*/*.log"
    with bench.endpoint(agent) as endpoint:
        with agent.start(bench.home(), pattern, endpoint) as process:
            written = sum(path.stat().st_size for path in paths)
            writers = [open(path, "ab", buffering=0) for path in paths]
            written += pour(writers, 3)
            if gone:
                endpoint.report()
                endpoint.close()
            else:
                endpoint.die()
            process.forget_peak()
            before, begun = process.cpu(), time.monotonic()
            written += pour(writers, seconds)
            share = (process.cpu() - before) / (time.monotonic() - begun)
            peak, handles = process.memory("VmHWM"), process.descriptors()
            how = "refuses" if gone else "does not answer"
            note = f"{seconds} s of 10 MB/s into {files:,} files, {share:.1%} of a core, {handles} descriptors"
            yield Figure("memory", f"peak while the endpoint {how}", peak, "MiB", DEAD,
                         agent=agent.name, note=note)
            if not gone:
                # Bytes whose answers were lost come twice: at least all come.
                endpoint.heal()
                drain(agent, process, endpoint, written)
                yield Figure("memory", "peak while what has piled up drains", process.memory("VmHWM"),
                             "MiB", DRAINING, agent=agent.name,
                             note=f"{written / 1e6:.0f} MB written, {endpoint.bytes / 1e6:.0f} MB accepted")
            process.popen.kill()
            for writer in writers:
                writer.close()


def pour(writers, seconds):
    """Writes lines at the rate into all files in turn; returns the bytes written."""
    line = b"2026-11-23T12:00:00Z INFO request 4711 took 3.2 ms, user u42, GET /items/4711\n"
    share = max(1, RATE // TICKS // 10 // len(line))
    block, written, turn = line * share, 0, 0
    begun = time.monotonic()
    for tick in range(seconds * TICKS):
        wait = begun + tick / TICKS - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        due = RATE // TICKS * (tick + 1)
        while written < due:
            written += os.write(writers[turn % len(writers)].fileno(), block)
            turn += 1
    return written

"""CPU per GiB of log lines against the floor's, plain and over TLS, with default settings.

Floor and agent take turns on the same files and the same endpoint; what counts is the median of the
ratios of neighbouring runs.
"""
import statistics

from .. import logs
from ..bench import drain
from ..endpoint import certificate
from ..figures import Figure
from ..process import measure

GIB = 2**30
RATIO = 1.15


def run(bench):
    options = bench.options
    files = logs.generate(bench.tools, bench.logs(), options.files or 20,
                          (options.size or 400) * 1_000_000)
    size = sum(file.stat().st_size for file in files)
    pair = certificate(bench.work)
    for scheme in ("http", "https"):
        with bench.endpoint(certificate=pair if scheme == "https" else None) as endpoint:
            yield from ratios(bench, scheme, endpoint, files, size, pair[0])
            # A peer's TLS settings are its own affair: its cost is told on the plain road.
            if scheme == "http":
                for peer in bench.agents[1:]:
                    yield whole(bench, peer, endpoint, files, size)


def ratios(bench, scheme, endpoint, files, size, trusted):
    floors, agents, peaks = [], [], []
    for _ in range(bench.options.runs):
        used, _ = measure([bench.tools / "floor", endpoint.url, "--ca", trusted, *files])
        floors.append(used)
        least = endpoint.report()
        process = bench.kinetail.start(bench.home(), f"{files[0].parent}/*.log", endpoint,
                                       trusted=trusted, once=True)
        with process:
            used, peak = process.finish()
        agents.append(used)
        peaks.append(peak)
        sent = endpoint.report()
        if not least["bytes"] == sent["bytes"] == size:
            raise SystemExit(f"not the same bytes: {size}, floor {least}, kinetail {sent}")
    each = [mine / floor for mine, floor in zip(agents, floors)]
    yield Figure("cpu", f"CPU against the floor's, {scheme}", statistics.median(each), "times", RATIO,
                 note=f"{min(each):.2f} to {max(each):.2f}")
    for name, used in (("floor", floors), ("kinetail", agents)):
        yield Figure("cpu", f"CPU per GiB, {scheme}", statistics.median(used) * GIB / size, "s", agent=name)
    yield Figure("cpu", f"payload units, {scheme}", sent["units"], "")
    yield Figure("cpu", f"peak memory, {scheme}", max(peaks), "MiB")


def whole(bench, peer, endpoint, files, size):
    """Ships all with a peer, which does not end by itself."""
    before = endpoint.bytes
    process = peer.start(bench.home(), f"{files[0].parent}/*.log", endpoint)
    with process:
        used = drain(peer, process, endpoint, size)
        peak = process.memory("VmHWM")
        process.stop()
    note = f"peak {peak:.0f} MiB; {(endpoint.bytes - before) / size:.1%} of the bytes came"
    return Figure("cpu", "CPU per GiB, http", used * GIB / size, "s", agent=peer.name, note=note)

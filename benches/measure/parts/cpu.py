"""CPU per GiB of log lines against the floor's, plain and over TLS, with default settings.

Floor and agent take turns on the same files and the same endpoint; what counts is the median of the
ratios of neighbouring runs.
"""
import statistics

from .. import logs
from ..bench import drain
from ..figures import Figure
from ..process import measure

GIB = 2**30
RATIO = 1.15


def run(bench):
    options = bench.options
    files = logs.generate(bench.tools, bench.logs(), options.files or 20,
                          (options.size or 1_000) * 1_000_000)
    size = sum(file.stat().st_size for file in files)
    for scheme in ("http", "https"):
        with bench.endpoint(tls=scheme == "https") as endpoint:
            yield from ratios(bench, scheme, endpoint, files, size)
    for peer in bench.agents[1:]:
        with bench.endpoint(peer) as endpoint:
            yield whole(bench, peer, endpoint, files, size)


def ratios(bench, scheme, endpoint, files, size):
    floors, agents, peaks = [], [], []
    for _ in range(bench.options.runs):
        trusted = ["--ca", endpoint.trusted] if endpoint.trusted else []
        used, _ = measure([bench.tools / "floor", endpoint.url, *trusted, *files])
        floors.append(used)
        least = endpoint.report()
        process = bench.kinetail.start(bench.home(), f"{files[0].parent}/*.log", endpoint,
                                       once=True)
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
    process = peer.start(bench.home(), f"{files[0].parent}/*.log", endpoint)
    with process:
        used = drain(peer, process, endpoint, size)
        peak = process.memory("VmHWM")
        process.stop()
    note = f"peak {peak:.0f} MiB; {endpoint.bytes / size:.1%} of the bytes came"
    scheme = endpoint.url.split(":")[0]
    return Figure("cpu", f"CPU per GiB, {scheme}", used * GIB / size, "s", agent=peer.name, note=note)

"""CPU per GiB of log lines by format and compression, and how full the records are.

The logs are as compressible as real ones. The ways take turns on the same files; what counts is the
median, and for the goals the median of the ratios of neighbouring runs.
"""
import statistics

from ..figures import Figure
from ..logs import generate

GIB = 2**30
WAYS = {
    "lines": "format: lines",
    "lines + zstd": "format: lines, compression: zstd",
    "lines + gzip": "format: lines, compression: gzip",
    "kpl": "format: kpl",
    "kpl + zstd": "format: kpl, compression: zstd",
}
# CPU of one way at most so many times another's.
RATIOS = [("lines + zstd", "lines", 1.0), ("kpl + zstd", "lines + zstd", 1.3)]
MAX_BYTES = 25_000


def run(bench):
    options = bench.options
    files = generate(bench.tools, bench.logs(), options.files or 5,
                     (options.size or 250) * 1_000_000, kind="realistic")
    size = sum(file.stat().st_size for file in files)
    used = {way: [] for way in WAYS}
    with bench.endpoint() as endpoint:
        for _ in range(options.runs):
            for way, merge in WAYS.items():
                used[way].append(ship(bench, endpoint, files, merge)[0])
        for way, seconds in used.items():
            yield Figure("formats", f"CPU per GiB, {way}", statistics.median(seconds) * GIB / size, "s")
        for way, other, goal in RATIOS:
            each = [mine / its for mine, its in zip(used[way], used[other])]
            yield Figure("formats", f"CPU, {way} against {other}", statistics.median(each), "times", goal,
                         note=f"{min(each):.2f} to {max(each):.2f}")
        for way, merge in WAYS.items():
            _, sent = ship(bench, endpoint, files, merge, joined=False)
            full = sent["bytes"] / (sent["records"] * MAX_BYTES) * 100
            goal = 95 if "+" in way else 98
            yield Figure("formats", f"fill of records, {way}", full, "%", goal, least=True,
                         note=f"{sent['records']:,} records, {size / sent['bytes']:.1f} times smaller")


def ship(bench, endpoint, files, merge, joined=True):
    """Ships all once; returns the CPU seconds and what the endpoint counted."""
    flow = f"merge: {{ {merge}, max_age: 1 min }}\n" + ("" if joined else "ship: { joined_bytes: 0 }\n")
    endpoint.report()
    process = bench.kinetail.start(bench.home(), f"{files[0].parent}/*.log", endpoint, once=True, flow=flow)
    with process:
        used, _ = process.finish()
    return used, endpoint.report()

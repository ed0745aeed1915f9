"""CPU per GiB: the same from 1 to 10,000 files, 20-byte to 100 KB lines, 100 MB to 10 GB.

Each is shipped in turn, with default settings; what counts is the least CPU of several rounds, for
whatever else the machine does only adds. The figure is how far the dearest and the cheapest are
from the middle between them.
"""
from .. import logs
from ..figures import Figure
from ..process import measure

GIB = 2**30
SPREAD = 15
FILES = (1, 10, 100, 1_000, 10_000)
LINES = (20, 200, 2_000, 20_000, 100_000)
SIZES = (100, 1_000, 10_000)
# Megabytes where it is not the size that varies, files where it is not their number.
SIZE = 1_000
COUNT = 20


def run(bench):
    megabytes = bench.options.size or SIZE
    yield from family(bench, "files", {
        f"{files:,} files": generated(bench, files, megabytes) for files in FILES
    })
    yield from family(bench, "length of lines", {
        f"lines of {length:,} bytes": uniform(bench, length, megabytes) for length in LINES
    })
    yield from family(bench, "size", {
        f"{size * megabytes // SIZE:,} MB": generated(bench, COUNT, size * megabytes // SIZE)
        for size in SIZES
    })


def generated(bench, files, megabytes):
    directory = bench.logs()
    return directory, logs.backlog(bench.tools, bench.work, directory, files, megabytes * 1_000_000), None


def uniform(bench, length, megabytes):
    directory = bench.logs()
    return directory, *logs.uniform(bench.work, directory, COUNT, megabytes * 1_000_000, length)


def family(bench, what, cases):
    least = {}
    with bench.endpoint() as endpoint:
        for _ in range(min(bench.options.runs, 3)):
            for name, (directory, size, _) in cases.items():
                with bench.kinetail.start(bench.home(), f"{directory}/*.log", endpoint, once=True) as agent:
                    used, _ = agent.finish()
                came = endpoint.report()["bytes"]
                if came != size:
                    raise SystemExit(f"{name}: {came} of {size} bytes came")
                least[name] = min(used, least.get(name, used))
    costs = []
    for name, (_, size, lines) in cases.items():
        cost = least[name] * GIB / size
        costs.append(cost)
        note = f"{least[name] / lines * 1e9:,.0f} ns a line" if lines else ""
        yield Figure("flat", f"CPU per GiB, {name}", cost, "s", note=note)
    spread = (max(costs) - min(costs)) / (max(costs) + min(costs)) * 100
    yield Figure("flat", f"CPU per GiB by {what}: ± of the middle", spread, "%", SPREAD,
                 note=f"per byte, {min(costs):.2f} to {max(costs):.2f} s")
    bench.clear()

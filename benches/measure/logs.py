"""The logs that are shipped: generated ones, backlogs of them repeated, and lines of one length.

Invariant: no two files begin alike, so that every agent tells them apart by what they begin with.
"""
import os
import shutil
import subprocess

SEED = "42"
# What is generated once and repeated in a backlog: varied enough, and quickly made.
BASE = 64_000_000


def generate(tools, directory, files, size, kind=None):
    """Generates logs as the tests have them, or of a kind; returns the files."""
    kinds = [kind] if kind else []
    subprocess.run([tools / "generate-logs", directory, SEED, str(files), str(size), *kinds],
                   check=True, stdout=subprocess.DEVNULL)
    return sorted(directory.iterdir())


def backlog(tools, work, directory, files, size):
    """Writes `size` bytes of generated lines into so many files; returns the bytes written."""
    room(work, size + BASE)
    source = work / "base"
    if not source.exists():
        generate(tools, source, 1, BASE)
    base = next(source.iterdir()).read_bytes()
    base = base[: base.rindex(b"\n") + 1]
    directory.mkdir(parents=True)
    each, place = size // files, 0
    for number in range(files):
        with open(directory / f"app-{number:05}.log", "wb") as file:
            written = file.write(b"# log %d\n" % number)
            while written < each:
                # A piece of whole lines, from where the last file left off.
                if place == len(base):
                    place = 0
                end = min(place + each - written, len(base))
                end = base.rindex(b"\n", 0, end) + 1
                if end <= place:
                    end = base.index(b"\n", place) + 1
                written += file.write(memoryview(base)[place:end])
                place = end
                if each - written < 200:
                    break
    return sum(file.stat().st_size for file in directory.iterdir())


def uniform(work, directory, files, size, length):
    """Writes `size` bytes of lines of one length, newline included; returns bytes and lines."""
    room(work, size)
    directory.mkdir(parents=True)
    lines = max(1, size // length)
    text = os.urandom(75_000).hex().encode()
    block = b"".join(
        b"%s\n" % text[number * 7 % 40_000:][: length - 1] for number in range(max(1, 1_000_000 // length))
    )
    for number in range(files):
        left = lines * (number + 1) // files - lines * number // files
        with open(directory / f"app-{number:05}.log", "wb") as file:
            # The first line tells the files apart.
            file.write((b"%015d " % number + text)[: length - 1] + b"\n")
            left -= 1
            while left > 0:
                left -= file.write(memoryview(block)[: left * length]) // length
    return sum(file.stat().st_size for file in directory.iterdir()), lines


def idle(directory, files, line=b"GET /health 200 0.3 ms, the same as every second before\n"):
    """Writes so many files of ten lines in directories of a hundred; returns bytes and files."""
    paths = []
    for number in range(files):
        path = directory / f"service-{number // 100:03}" / f"app-{number:05}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"# log %d\n" % number + line * 10)
        paths.append(path)
    return sum(path.stat().st_size for path in paths), paths


def room(work, size):
    """Ends the measurement where the disk cannot take so many bytes and some more."""
    free = shutil.disk_usage(work).free
    if free < size + 1_000_000_000:
        raise SystemExit(f"{work}: {free} bytes free, {size} and 1 GB wanted: see --work and --size")

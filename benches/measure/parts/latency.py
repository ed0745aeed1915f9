"""From the write of a line to its acceptance, with `max_age: 0`: 1,000 lines/s, and after silence.

Each line holds when it was written; the endpoint, on the same machine and clock, tells how long it
was under way. What the endpoint and the loopback need by themselves is measured by calls of one
line made directly, and taken off percentile by percentile.
"""
import base64
import os
import socket
import time

from ..figures import Figure

RATE = 1_000
GOALS = {"p50": 2.0, "p99": 10.0}
SILENCE = 60
SETTLE = 2
PADDING = b" GET /items/4711 200 3.2 ms user u42" + b"." * 100 + b"\n"


def run(bench):
    log = bench.logs() / "app.log"
    log.parent.mkdir()
    with bench.endpoint(latency=True) as endpoint:
        own = direct(endpoint, 5)
        yield Figure("latency", "the endpoint's own time, p50", own["p50"] / 1e3, "ms", agent="direct call")
        yield Figure("latency", "the endpoint's own time, p99", own["p99"] / 1e3, "ms", agent="direct call")
        with open(log, "ab", buffering=0) as file:
            home = bench.home()
            with bench.kinetail.start(home, log, endpoint, flow="merge: { max_age: 0 }\n") as process:
                write(file, 2)
                settled(endpoint, process, 2 * RATE)
                seconds = bench.options.seconds
                write(file, seconds)
                told = settled(endpoint, process, seconds * RATE)
                yield from figures(told, own, f"{RATE:,} lines/s", f"over {seconds} s")
                time.sleep(SILENCE)
                os.write(file.fileno(), line())
                first = settled(endpoint, process, 1)["max"] - own["p50"]
                yield Figure("latency", "beyond the endpoint's, the first line after a minute of silence",
                             first / 1e3, "ms", GOALS["p99"])
                time.sleep(SILENCE)
                write(file, 1)
                told = settled(endpoint, process, RATE)
                yield from figures(told, own, "after a minute of silence", "the first 1,000 lines")
                process.stop()


def figures(told, own, what, note):
    for name, goal in GOALS.items():
        beyond = max(0, told[name] - own[name]) / 1e3
        yield Figure("latency", f"beyond the endpoint's, {what}, {name}", beyond, "ms", goal,
                     note=note if name == "p50" else f"longest {told['max'] / 1e3:.1f} ms")


def line():
    return b"%d" % time.time_ns() + PADDING


def write(file, seconds):
    """Writes lines at the rate, each by a call of its own."""
    begun = time.monotonic()
    for number in range(seconds * RATE):
        wait = begun + number / RATE - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        os.write(file.fileno(), line())


def settled(endpoint, process, lines):
    """Waits for so many lines; returns their percentiles.

    A report begins anew, so it is asked for once, when all have had time to come.
    """
    time.sleep(SETTLE)
    told = endpoint.report()["latency_us"]
    if told["lines"] != lines:
        process.fail(f"{told['lines']} of {lines} lines within {SETTLE} s")
    return told


def direct(endpoint, seconds):
    """Calls the endpoint with a line each at the rate; returns the percentiles."""
    host, port = endpoint.url.split("//")[1].split(":")
    with socket.create_connection((host, int(port))) as call:
        call.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = time.monotonic()
        for number in range(seconds * RATE):
            wait = begun + number / RATE - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            data = base64.b64encode(line())
            body = b'{"StreamName":"bench","Records":[{"Data":"' + data + b'","PartitionKey":"k"}]}'
            call.sendall(b"POST / HTTP/1.1\r\nhost: x\r\nx-amz-target: Kinesis_20131202.PutRecords\r\n"
                         b"content-length: %d\r\n\r\n" % len(body) + body)
            answer = b""
            while not answer.endswith(b"]}"):
                answer += call.recv(65536)
    return endpoint.report()["latency_us"]

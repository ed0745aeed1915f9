"""The null endpoint, as a process of its own, and the certificate it shows."""
import json
import signal
import subprocess
import time

from .process import Process


class Endpoint:
    """A null endpoint; its totals are of what it has reported so far."""

    def __init__(self, tools, certificate=None, latency=False, core=None):
        pinned = ["taskset", "--cpu-list", str(core)] if core is not None else []
        tls = ["--tls", *certificate] if certificate else []
        self.process = subprocess.Popen(
            [*pinned, tools / "null-endpoint", *tls, *(["--latency"] if latency else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        # What a client has to trust, where the endpoint speaks TLS.
        self.trusted = certificate[0] if certificate else None
        self.url = self.process.stdout.readline().strip()
        self.bytes = self.records = 0
        # When the first and the last call had arrived: nanoseconds since 1970.
        self.first = self.last = None

    @property
    def port(self):
        return int(self.url.rsplit(":", 1)[1])

    def report(self):
        """Returns what was accepted since the last report."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        told = json.loads(self.process.stdout.readline())
        self.bytes += told["bytes"]
        self.records += told["records"]
        if told["calls"]:
            self.first = self.first or told["first_ns"]
            self.last = told["last_ns"]
        return told

    def wait(self, agent: Process, size, deadline=600, pause=0.02):
        """Waits until `size` bytes have come in all."""
        end = time.monotonic() + deadline
        while self.report() and self.bytes < size:
            agent.check()
            if time.monotonic() > end:
                agent.fail(f"{self.bytes} of {size} bytes after {deadline} s")
            time.sleep(pause)

    def quiet(self, agent: Process, seconds):
        """Waits until nothing comes for so long; returns the agent's CPU seconds until the last."""
        seen, since, used = None, time.monotonic(), 0.0
        while not self.bytes or time.monotonic() - since < seconds:
            self.report()
            agent.check()
            if self.bytes != seen:
                seen, since, used = self.bytes, time.monotonic(), agent.cpu()
            if not self.bytes and time.monotonic() - since > 60:
                agent.fail("nothing came within a minute")
            time.sleep(0.1)
        return used

    def cpu(self):
        """Returns the CPU seconds used so far."""
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def die(self):
        """Stops it in the middle of what it does: connections stay, and nobody answers."""
        self.process.send_signal(signal.SIGSTOP)

    def heal(self):
        """Lets it go on."""
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        """Ends it: from now on connections are refused."""
        self.heal()
        self.process.stdin.close()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.close()


def certificate(work):
    """Makes a certificate for the loopback address that is its own authority."""
    cert, key = work / "cert.pem", work / "key.pem"
    if not cert.exists():
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-keyout", key, "-out", cert, "-days", "30", "-subj", "/CN=127.0.0.1",
             "-addext", "subjectAltName=IP:127.0.0.1",
             "-addext", "basicConstraints=critical,CA:FALSE"],
            check=True, stderr=subprocess.DEVNULL,
        )
    return cert, key

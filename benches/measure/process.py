"""A process that is measured: its CPU seconds and its resident memory, read from the kernel.

Invariant: peak memory is the process's own. `ru_maxrss` is not asked: a child begins with its
parent's.
"""
import os
import signal
import subprocess
import tempfile
import time

# How often a running process is asked for its peak, which grows only: what it gains between the
# last question and its end is missed.
LOOK = 0.02


class Process:
    """A command that has been started, with an environment of its own or this one."""

    def __init__(self, command, environment=None, core=None):
        self.output = tempfile.TemporaryFile()
        self.command = [str(word) for word in command]
        pinned = ["taskset", "--cpu-list", str(core)] if core is not None else []
        self.started = time.time_ns()
        self.popen = subprocess.Popen(
            pinned + self.command, env=environment, stdout=self.output, stderr=self.output
        )
        self.pid = self.popen.pid

    def cpu(self):
        """Returns the CPU seconds used so far, of all threads, ended ones included."""
        # The kernel's name for another process's CPU clock (clock_getcpuclockid).
        return time.clock_gettime((~self.pid << 3) | 2)

    def memory(self, name="VmRSS"):
        """Returns resident memory in MiB: now (VmRSS) or at its peak (VmHWM)."""
        with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) / 1024
        return 0.0

    def descriptors(self):
        """Returns how many file descriptors are open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def forget_peak(self):
        """Lets VmHWM begin anew, at what is resident now."""
        with open(f"/proc/{self.pid}/clear_refs", "w", encoding="ascii") as refs:
            refs.write("5")

    def check(self):
        """Ends the measurement where the process has ended by itself."""
        if self.popen.poll() is not None:
            self.fail(f"ended with {self.popen.returncode}")

    def fail(self, why):
        """Ends the measurement, and says what the process said."""
        self.output.seek(0)
        said = self.output.read().decode(errors="replace")[-4000:]
        raise SystemExit(f"{self.command[0]}: {why}\n{said}")

    def finish(self, deadline=3600):
        """Waits until it ends by itself, with 0; returns its CPU seconds and its peak in MiB."""
        peak, end = 0.0, time.monotonic() + deadline
        while True:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, self.memory("VmHWM"))
            if time.monotonic() > end:
                self.popen.kill()
                self.fail(f"not done after {deadline} s")
            time.sleep(LOOK)
        self.popen.returncode = os.waitstatus_to_exitcode(status)
        if self.popen.returncode != 0:
            self.fail(f"ended with {self.popen.returncode}")
        self.output.close()
        return used.ru_utime + used.ru_stime, peak

    def stop(self, deadline=60):
        """Asks it to end, as a service manager would; returns what `finish` does."""
        self.popen.send_signal(signal.SIGTERM)
        return self.finish(deadline)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        self.output.close()


def measure(command, environment=None, core=None):
    """Runs a command to its end; returns its CPU seconds and its peak in MiB."""
    with Process(command, environment, core) as process:
        return process.finish()

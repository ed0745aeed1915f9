#!/usr/bin/python3
"""Stands in for systemd in a root where it cannot be the first process: `systemctl` for the one service, and
`journalctl` for what it said.

It reads the unit with its drop-ins, and does what of it can be done without a manager: the condition, state
directory, environment, user and groups, capabilities, NoNewPrivileges, umask, limits of files, readiness,
watchdog and restarts; the read-only system, hidden homes and private /tmp where it may mount. It filters no
system calls and bounds no memory or tasks. Verbs that need no manager go to the real systemctl.
"""

import glob
import grp
import os
import pwd
import re
import select
import signal
import socket
import subprocess
import sys
import time

NAME = "kinetail"
HOME = f"/run/{NAME}-stand-in"
LOG, PID, NOTIFY, PROPERTIES = (f"{HOME}/{name}" for name in ("log", "pid", "notify", "properties"))
ON = ("yes", "true", "1", "on", "strict", "full")


def words(command):
    """Returns the words of a command; what stands in quotes is one."""
    return [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|(\S+)', command)]


def before(steps):
    """Returns what takes steps before a command; a step that fails is the end, by a code of its own."""
    return ["sh", "-c", " && ".join(steps) + ' || exit 255; exec "$@"', NAME]


class Unit:
    """The settings of the unit and of its drop-ins; an empty value takes back what came before."""

    def __init__(self):
        self.settings = {}
        places = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
        units = [path for place in places if os.path.exists(path := f"{place}/{NAME}.service")]
        if not units:
            sys.exit(f"Unit {NAME}.service not found.")
        for path in units[:1] + sorted(glob.glob(f"/etc/systemd/system/{NAME}.service.d/*.conf")):
            for line in open(path):
                key, equals, value = line.strip().partition("=")
                if not equals or line.startswith(("#", ";")):
                    continue
                values = self.settings.setdefault(key, [])
                values.append(value) if value else values.clear()

    def last(self, key, default=""):
        values = self.settings.get(key) or [default]
        return values[-1]

    def words(self, key):
        return " ".join(self.settings.get(key, [])).split()

    def seconds(self, key, default):
        number, of = re.fullmatch(r"([0-9.]+)(s|ms|min)?", self.last(key, default)).groups()
        return float(number) * {"ms": 0.001, "min": 60}.get(of, 1)

    def command(self, key):
        """Returns a command of the unit, restricted as the unit says."""
        user = pwd.getpwnam(self.last("User"))
        groups = set(os.getgrouplist(user.pw_name, user.pw_gid))
        groups |= {grp.getgrnam(group).gr_gid for group in self.words("SupplementaryGroups")}
        listed = {
            option: ",".join(["-all"] + ["+" + word.lower().removeprefix("cap_") for word in self.words(setting)])
            for option, setting in (
                ("--bounding-set", "CapabilityBoundingSet"),
                ("--inh-caps", "AmbientCapabilities"),
                ("--ambient-caps", "AmbientCapabilities"),
            )
        }
        gid = grp.getgrnam(self.last("Group")).gr_gid
        setpriv = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={gid}"]
        setpriv += ["--groups=" + ",".join(map(str, sorted(groups)))]
        setpriv += [f"{option}={value}" for option, value in listed.items()]
        if self.last("NoNewPrivileges") in ON:
            setpriv.append("--no-new-privs")
        files = self.last("LimitNOFILE")
        # Where that is more than the host allows, what it allows.
        limits = [f"umask {self.last('UMask')}", f"ulimit -c {self.last('LimitCORE')}"]
        limits += [f"{{ ulimit -n {files} 2>/dev/null || ulimit -Sn $(ulimit -Hn); }}"]
        return [*before(limits), *self.mounts(), *setpriv, *words(self.last(key))]

    def mounts(self):
        """Returns what a command stands behind, for the file systems that it shall see."""
        if not os.path.exists("/proc/self"):
            return []
        state = f"/var/lib/{self.last('StateDirectory')}"
        steps = [f"mount --bind {place} {place}" for place in (state, *self.words("ReadWritePaths"))]
        if self.last("PrivateTmp") in ON:
            steps += [f"mount -t tmpfs tmpfs {place}" for place in ("/tmp", "/var/tmp")]
        if self.last("ProtectHome") in ON:
            steps += [f"mount -t tmpfs -o ro,mode=755 tmpfs {place}" for place in ("/home", "/root")]
        if self.last("ProtectSystem") in ON:
            steps.append("mount -o remount,bind,ro /")
        return ["unshare", "--mount", *before(steps)]

    def environment(self):
        user = pwd.getpwnam(self.last("User"))
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "NOTIFY_SOCKET": NOTIFY}
        env |= {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
        env |= {"WATCHDOG_USEC": str(int(self.seconds("WatchdogSec", "0") * 1e6))}
        optional = self.last("EnvironmentFile")
        if optional and os.path.exists(path := optional.lstrip("-")):
            env |= dict(line.strip().split("=", 1) for line in open(path) if re.match(r"\w+=", line))
        return env


def properties():
    if not os.path.exists(PROPERTIES):
        return {"ActiveState": "inactive", "MainPID": "0", "NRestarts": "0", "ExecMainStatus": "0"}
    return dict(line.rstrip("\n").split("=", 1) for line in open(PROPERTIES))


def tell(**changed):
    values = {**properties(), **{key: str(value) for key, value in changed.items()}}
    with open(PROPERTIES + ".new", "w") as file:
        file.writelines(f"{key}={value}\n" for key, value in values.items())
    os.replace(PROPERTIES + ".new", PROPERTIES)


class Supervisor:
    """Keeps the service running, as the unit says."""

    def __init__(self, unit, answer):
        self.unit, self.answer, self.stopping = unit, answer, False
        self.log = open(LOG, "ab", buffering=0)
        if os.path.exists(NOTIFY):
            os.unlink(NOTIFY)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(NOTIFY)
        os.chmod(NOTIFY, 0o666)
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_):
        self.stopping = True

    def reply(self, success):
        """Answers the command that waits for the first start, once."""
        if self.answer is not None:
            os.write(self.answer, b"1" if success else b"0")
            os.close(self.answer)
            self.answer = None

    def run(self):
        user, group = pwd.getpwnam(self.unit.last("User")), grp.getgrnam(self.unit.last("Group"))
        state = f"/var/lib/{self.unit.last('StateDirectory')}"
        os.makedirs(state, exist_ok=True)
        os.chown(state, user.pw_uid, group.gr_gid)
        os.chmod(state, int(self.unit.last("StateDirectoryMode"), 8))
        tell(ActiveState="inactive", MainPID=0, NRestarts=0)
        passed = subprocess.run(self.unit.command("ExecCondition"), env=self.unit.environment(), stdout=self.log, stderr=self.log)
        if passed.returncode != 0:
            return self.reply(1 <= passed.returncode <= 254)
        restarts = 0
        while not self.stopping:
            code = self.live_once()
            if self.stopping or code == 0:
                break
            self.reply(False)
            if str(code) in self.unit.words("RestartPreventExitStatus") or self.unit.last("Restart") != "on-failure":
                return tell(ActiveState="failed")
            restarts += 1
            tell(ActiveState="activating", NRestarts=restarts)
            time.sleep(self.unit.seconds("RestartSec", "100ms"))
        tell(ActiveState="inactive")

    def live_once(self):
        unit = self.unit
        tell(ActiveState="activating")
        child = subprocess.Popen(
            unit.command("ExecStart"), env=unit.environment(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        tell(MainPID=child.pid)
        watchdog, deadline, kill_at = unit.seconds("WatchdogSec", "0"), None, None
        while child.poll() is None:
            now = time.monotonic()
            if select.select([self.socket], [], [], 0.05)[0]:
                said = self.socket.recv(4096).decode().split("\n")
                if "READY=1" in said:
                    tell(ActiveState="active")
                    self.reply(True)
                if watchdog and ("READY=1" in said or "WATCHDOG=1" in said):
                    deadline = now + watchdog
                    tell(WatchdogTimestampMonotonic=time.monotonic_ns() // 1000)
            if self.stopping and kill_at is None:
                child.send_signal(signal.SIGTERM)
                kill_at = now + unit.seconds("TimeoutStopSec", "90s")
            elif deadline and now > deadline and kill_at is None:
                child.send_signal(signal.SIGABRT)
                kill_at = now + unit.seconds("TimeoutAbortSec", "90s")
            if kill_at and now > kill_at:
                child.kill()
        tell(MainPID=0, ExecMainStatus=abs(child.returncode))
        return child.returncode


def running():
    """Returns the process of the supervisor; 0 where there is none."""
    return int(open(PID).read()) if os.path.exists(PID) else 0


def start():
    if running():
        return 0
    unit = Unit()
    os.makedirs(HOME, exist_ok=True)
    answer, say = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(PID, "w") as file:
                file.write(str(os.getpid()))
            os.close(answer)
            for standard in range(3):
                os.dup2(os.open(LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND), standard)
            try:
                Supervisor(unit, say).run()
            finally:
                os.unlink(PID)
        os._exit(0)
    os.close(say)
    os.wait()
    return 0 if os.read(answer, 1) == b"1" else 1


def stop():
    supervisor = running()
    if supervisor:
        os.kill(supervisor, signal.SIGTERM)
        while os.path.exists(PID):
            time.sleep(0.05)
    return 0


def kill():
    """Ends the service and what supervises it at once."""
    for process in (running(), int(properties()["MainPID"])):
        if process:
            os.kill(process, signal.SIGKILL)
    return 0


def main(program, arguments):
    if program == "journalctl":
        sys.stdout.write(open(LOG, errors="replace").read() if os.path.exists(LOG) else "")
        return 0
    words = [word for word in arguments if not word.startswith("-")]
    wanted = [word.partition("=")[2] for word in arguments if word.startswith("--property=")]
    if "-P" in arguments:
        wanted.append(arguments[arguments.index("-P") + 1])
        words.remove(wanted[-1])
    verb, units = words[0], {word.removesuffix(".service") for word in words[1:]}
    if verb == "daemon-reload":
        return 0
    state = properties()
    if units == {NAME}:
        if verb == "start":
            return start()
        if verb == "stop":
            return stop()
        if verb == "kill":
            return kill()
        if verb == "restart" or verb == "try-restart" and running():
            return stop() or start()
        if verb == "try-restart":
            return 0
        if verb in ("is-active", "is-failed"):
            print(state["ActiveState"])
            return 0 if state["ActiveState"] == {"is-active": "active", "is-failed": "failed"}[verb] else 3
        if verb == "show":
            print("\n".join(state.get(key, "") for key in wanted))
            return 0
        if verb == "status":
            print(state)
            return 0
    return subprocess.run(["/usr/bin/systemctl.real", "--root=/", *arguments]).returncode


sys.exit(main(os.path.basename(sys.argv[0]), sys.argv[1:]))

"""What every part is given: the options, the binaries, a directory to work in, the agents."""
import itertools
import shutil

from .agents import Kinetail
from .endpoint import Endpoint, certificate


class Bench:
    """One run of the benchmarks."""

    def __init__(self, options, root, tools, binary, peers, work):
        self.options = options
        self.root = root
        self.tools = tools
        self.work = work
        self.kinetail = Kinetail(binary)
        self.agents = [self.kinetail, *peers]
        self.numbers = itertools.count()

    def home(self):
        """Returns a fresh place for what an agent keeps."""
        home = self.work / f"home-{next(self.numbers)}"
        home.mkdir()
        return home

    def logs(self):
        """Returns a path for a fresh directory of logs."""
        return self.work / f"logs-{next(self.numbers)}"

    def endpoint(self, agent=None, tls=False, **settings):
        """Starts a null endpoint, with TLS where that is asked for or the agent cannot do without."""
        pair = certificate(self.work) if tls or (agent and agent.tls) else None
        return Endpoint(self.tools, pair, **settings)

    def clear(self):
        """Removes what the parts so far have written."""
        for path in self.work.iterdir():
            if path.is_dir():
                shutil.rmtree(path)


def drain(agent, process, endpoint, size):
    """Waits until the agent has shipped all; returns the CPU seconds it has used by then.

    kinetail's bytes are those of the files. Others leave out newlines, and now and then a line: they
    are done when nothing has come for ten seconds.
    """
    if agent.exact:
        endpoint.wait(process, size, deadline=3600)
        return process.cpu()
    return endpoint.quiet(process, seconds=10)

"""A figure, with its goal where it has one; and the table and the file of many."""
import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass


@dataclass
class Figure:
    """A measured value of an agent."""

    part: str
    what: str
    value: float
    unit: str
    # The goal: at most this, or at least this where `least` is set; None: told for comparison.
    goal: float | None = None
    least: bool = False
    agent: str = "kinetail"
    note: str = ""

    @property
    def met(self):
        """Whether the goal is met; None without a goal, which are kinetail's alone."""
        if self.goal is None or self.agent != "kinetail":
            return None
        return self.value >= self.goal if self.least else self.value <= self.goal

    @property
    def aim(self):
        """The goal in words."""
        sign = "≥" if self.least else "≤"
        return "" if self.goal is None else f"{sign} {quantity(self.goal, self.unit)}"

    @property
    def verdict(self):
        return {None: "", True: "met", False: "MISSED"}[self.met]

    def line(self):
        """Returns the figure as a line for the terminal."""
        mine = f"{self.part:12} {self.agent:11} {self.what:58} {quantity(self.value, self.unit):>14}"
        goal = f"  {self.aim:>14}  {self.verdict:6}" if self.goal is not None else ""
        return f"{mine}{goal}" + (f"  ({self.note})" if self.note else "")


def quantity(value, unit):
    """Writes a value with three significant digits, and its unit."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
    text = f"{value:,.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text} {unit}".strip()


def machine():
    """Returns what was measured on: processor, cores, kernel."""
    model = platform.processor()
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}"


def commit(root):
    """Returns the short name of the commit, with a mark where files differ from it."""
    told = subprocess.run(["git", "describe", "--always", "--abbrev=9", "--dirty=+"],
                          cwd=root, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"


def save(path, origin, figures):
    """Writes the figures as JSON, for a later comparison."""
    told = {"origin": origin, "figures": [asdict(figure) for figure in figures]}
    path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path):
    """Reads what `save` wrote; returns the origin and the figures."""
    told = json.loads(path.read_text(encoding="utf-8"))
    return told["origin"], [Figure(**figure) for figure in told["figures"]]


def table(figures, before=()):
    """Returns the figures as a table in Markdown, with those of an earlier run beside them."""
    earlier = {(figure.part, figure.what, figure.agent): figure for figure in before}
    head = ["part", "agent", "what", "goal", *(["before"] if before else []), "reached", ""]
    rows = [head, ["---"] * len(head)]
    for figure in figures:
        past = earlier.get((figure.part, figure.what, figure.agent))
        then = [quantity(past.value, past.unit) if past else ""] if before else []
        rows.append([f"`{figure.part}`", figure.agent, figure.what, figure.aim, *then,
                     quantity(figure.value, figure.unit),
                     "; ".join(text for text in (figure.verdict, figure.note) if text)])
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)

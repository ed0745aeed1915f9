"""Instructions of the hot functions against the recorded figures: what `instructions.sh` checks."""
import subprocess

from ..figures import Figure


def run(bench):
    told = subprocess.run([bench.tools / "instructions"], capture_output=True, text=True, check=False)
    margin = None
    for line in told.stdout.splitlines():
        words = line.split()
        if words[:1] == ["margin"]:
            margin = float(words[1])
        elif len(words) >= 5 and words[2] == "a":
            yield Figure("instructions", words[0], float(words[4]), "of what is recorded", margin,
                         note=f"{words[1]} a {words[3]}")
    if told.returncode not in (0, 1) or margin is None:
        raise SystemExit(f"instructions: {told.stdout}{told.stderr}")

"""The agents that are measured: kinetail, and its peers where they are installed.

Each follows files and ships them to one endpoint. Peers have the most favourable settings that one
would run in earnest: positions on disk, no line dropped for its length, text as it stands.
"""
import os
import shutil
import textwrap

from .process import Process

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example-secret",
    "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "us-east-1",
}


class Agent:
    """An agent's binary, and how it is configured."""

    name = binary = None
    # Whether every byte arrives as it stood in the file, so that its end can be told by counting.
    exact = False
    # Settings with which a line does not wait for company.
    immediate = {}
    # Whether it speaks nothing but TLS.
    tls = False

    def __init__(self, binary=None):
        self.binary = binary or shutil.which(self.name)
        if not self.binary:
            raise SystemExit(f"{self.name} is not installed")

    def start(self, home, pattern, endpoint, core=None, **settings):
        """Starts it: what it keeps is in `home`, which may be that of an earlier start."""
        home.mkdir(parents=True, exist_ok=True)
        command = self.configure(home, pattern, endpoint, **settings)
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), **CREDENTIALS}
        if endpoint.trusted:
            environment["SSL_CERT_FILE"] = str(endpoint.trusted)
        return Process(command, environment, core)

    def configure(self, home, pattern, endpoint, **settings):
        """Writes the configuration; returns the command."""
        raise NotImplementedError


class Kinetail(Agent):
    """kinetail with default settings, but for what a part asks for."""

    name = "kinetail"
    exact = True
    immediate = {"flow": "merge: { max_age: 0 }\n"}

    def configure(self, home, pattern, endpoint, once=False, flow=""):
        config = home / "agent.yaml"
        config.write_text(
            f"state_dir: {home}/state\n"
            f'aws: {{ region: us-east-1, endpoint_url: "{endpoint.url}" }}\n'
            f'produce:\n  - name: all\n    files: ["{pattern}"]\n    stream: bench\n'
            + textwrap.indent(flow, "    ")
        )
        mode = ["--once"] if once else []
        return [self.binary, "run", *mode, "--log-level", "warn", "--config", config]


class FluentBit(Agent):
    """Fluent Bit, 4.2.2 or newer: chunks on disk, or what it holds dies with it; lines joined.

    Its output plugin makes TLS connections only.
    """

    name = "fluent-bit"
    tls = True

    def configure(self, home, pattern, endpoint):
        config = home / "fluent-bit.yaml"
        config.write_text(textwrap.dedent(f"""\
            service:
              flush: 0.2
              log_level: warn
              storage.path: {home}/chunks
              storage.max_chunks_up: 64
            pipeline:
              inputs:
                - name: tail
                  path: {pattern}
                  db: {home}/positions.db
                  read_from_head: true
                  refresh_interval: 10
                  buffer_chunk_size: 256k
                  buffer_max_size: 1M
                  storage.type: filesystem
              outputs:
                - name: kinesis_streams
                  match: '*'
                  region: us-east-1
                  stream: bench
                  log_key: log
                  endpoint: 127.0.0.1
                  port: {endpoint.port}
                  tls: on
                  tls.ca_file: {endpoint.trusted}
                  simple_aggregation: true
                  retry_limit: no_limits
            """))
        return [self.binary, "-c", config]


class Vector(Agent):
    """Vector: acknowledgements from end to end, as large batches as the API takes."""

    name = "vector"

    def configure(self, home, pattern, endpoint):
        (home / "data").mkdir(exist_ok=True)
        config = home / "vector.yaml"
        config.write_text(textwrap.dedent(f"""\
            data_dir: {home}/data
            sources:
              logs:
                type: file
                include: ["{pattern}"]
                max_line_bytes: 1048576
                max_read_bytes: 262144
            sinks:
              stream:
                type: aws_kinesis_streams
                inputs: [logs]
                stream_name: bench
                region: us-east-1
                endpoint: "{endpoint.url}"
                encoding: {{ codec: text }}
                batch: {{ max_events: 500, timeout_secs: 1 }}
                acknowledgements: {{ enabled: true }}
                healthcheck: {{ enabled: false }}
            """))
        return [self.binary, "--quiet", "--config", config]


PEERS = {peer.name: peer for peer in (FluentBit, Vector)}

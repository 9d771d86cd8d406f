"""Start vLLM's HTTP server, and Prometheus to scrape it, from tests."""

import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import psutil

START_TIMEOUT_S = 400


def free_port():
    """A port that nobody listens at, and that the kernel gives nobody who asks for any: those begin above these."""
    while True:
        port = random.randint(10_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("", port))
            return port


def get(url, timeout_s=30):
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:
        return answer.read().decode()


def answers(url):
    """Whether a server says 200."""
    try:
        get(url)
    except OSError:
        return False
    return True


class Process:
    """A process with a log, ended with all its children."""

    def __init__(self, command, log, environ=None):
        self.log_file = log
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                [str(part) for part in command], env=environ, cwd=log.parent,
                stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def log(self):
        return self.log_file.read_text(errors="replace")

    def wait_until(self, reached, what, seconds=START_TIMEOUT_S):
        """Fail with the log if the process ends before, or `reached` does not come true in time."""
        deadline = time.monotonic() + seconds
        while not reached():
            assert self.process.poll() is None, f"ended before {what}:\n{self.log[-6000:]}"
            assert time.monotonic() < deadline, f"not in {seconds} s: {what}\n{self.log[-6000:]}"
            time.sleep(0.1)

    def end(self):
        """As a supervisor ends it: first kindly."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                continue


class Server(Process):
    """`vllm serve` with a tiny model, ready to answer."""

    def __init__(self, model, log, environ, *options):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [
            sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model, "--port", self.port,
            "--host", "127.0.0.1", "--load-format", "dummy", "--skip-tokenizer-init", "--dtype", "float32",
            "--enforce-eager", "--max-model-len", 128, "--max-num-batched-tokens", 128, "--max-num-seqs", 4,
            "--worker-cls", "serving_worker.ServingCPUWorker", *options,
        ]  # fmt: skip
        super().__init__(command, log, environ)

    def await_health(self):
        self.wait_until(lambda: answers(f"{self.url}/health"), "it is healthy")

    @property
    def metrics(self):
        return get(f"{self.url}/metrics")

    @property
    def api_servers(self):
        """Process ids of those that answer requests."""
        return {int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", self.log)}

    def metrics_of(self, pid):
        """The page as one of several API servers makes it: which one takes a connection is the kernel's choice."""
        for _ in range(1000):
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
                connection.request("GET", "/metrics")
                text = connection.getresponse().read().decode()
                port = connection.sock.getsockname()[1]
                if any(found.raddr and found.raddr.port == port for found in psutil.Process(pid).net_connections()):
                    return text
        raise AssertionError(f"process {pid} takes no connection")

    def use_triton(self, block):
        """Ask every worker to use a kernel."""
        body = json.dumps({"method": "use_triton", "args": [str(block)]}).encode()
        request = urllib.request.Request(
            f"{self.url}/collective_rpc", body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.loads(answer.read())["results"]


def prometheus_binary():
    """Debian's, wherever it was unpacked; None where there is none."""
    return os.environ.get("PROMETHEUS") or shutil.which("prometheus")


class Prometheus(Process):
    """Debian's Prometheus, which scrapes `port` each second.

    Args:
        port: Of the server.
        directory: For its data, configuration and log.
        rules: Text of a file of alerting rules.
    """

    def __init__(self, port, directory, rules="groups: []"):
        directory.mkdir()
        (directory / "rules.yml").write_text(rules)
        (directory / "prometheus.yml").write_text(f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: vllm
    static_configs:
      - targets: ["127.0.0.1:{port}"]
""")
        self.url = f"http://127.0.0.1:{(own := free_port())}"
        command = [
            prometheus_binary(), f"--config.file={directory / 'prometheus.yml'}", f"--web.listen-address=127.0.0.1:{own}",
            f"--storage.tsdb.path={directory / 'data'}",
        ]  # fmt: skip
        super().__init__(command, directory / "log")
        self.wait_until(lambda: answers(f"{self.url}/-/ready"), "Prometheus is ready", 120)

    def query(self, promql):
        """The instant vector of a query: (labels without job and instance, value)."""
        answer = json.loads(get(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': promql})}"))
        assert answer["status"] == "success"
        left_out = ("__name__", "job", "instance")
        return [
            ({name: text for name, text in found["metric"].items() if name not in left_out}, float(found["value"][1]))
            for found in answer["data"]["result"]
        ]

    def value(self, promql):
        """The only value of a query; None where it has none."""
        found = self.query(promql)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    @property
    def firing(self):
        """Names of the alerts that fire."""
        alerts = json.loads(get(f"{self.url}/api/v1/alerts"))["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

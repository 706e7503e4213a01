"""Load on a server of its own: ``python tests/serve_load.py [--rounds N] [--memory N]``.

Every round sends the same requests twice: from 16 clients at once, and one after another. So each
picture is compared with the one drawn alone by its seed, and the two times are taken in pairs, on
whatever else the machine does. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import os
import queue
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from io import BytesIO

import httpx
import numpy as np
from PIL import Image

SUBJECTS = ("fox", "cat", "dog", "rabbit", "boat", "house")
PLACES = ("in snow", "on a beach", "in a forest", "in a meadow")
PROMPTS = [f"a {subject} {place}" for subject, place in itertools.product(SUBJECTS, PLACES)]


def request(number: int) -> dict:
    return {"prompt": PROMPTS[number % len(PROMPTS)], "seed": number, "size": "auto"}


def ask(client: httpx.Client, number: int) -> tuple[float, np.ndarray]:
    """Seconds and pixels of one request; the answer has to be the one that was asked for."""
    began = time.perf_counter()
    answer = client.post("/v1/images/generations", json=request(number))
    seconds = time.perf_counter() - began
    answer.raise_for_status()
    (one,) = answer.json()["data"]
    settings = one["settings"]
    asked = request(number)
    if (settings["seed"], settings["prompt"]) != (asked["seed"], asked["prompt"]):
        raise AssertionError(f"request {number} got the picture of {settings['seed']}")
    return seconds, np.asarray(Image.open(BytesIO(base64.b64decode(one["b64_json"]))), int)


def at_once(url: str, numbers: list[int], clients: int) -> tuple[float, dict]:
    """All requests from so many clients; the seconds in all and each one's answer."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in numbers:
        waiting.put(number)
    found: dict[int, tuple[float, np.ndarray]] = {}

    def client() -> None:
        with httpx.Client(base_url=url, timeout=600, trust_env=False) as own:
            while True:
                try:
                    number = waiting.get_nowait()
                except queue.Empty:
                    return
                found[number] = ask(own, number)

    began = time.perf_counter()
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began, found


def megabytes(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1]) / 1024


def settled(pid: int) -> float:
    """Megabytes when the last batch is over: it ends a moment after its last answer."""
    time.sleep(1)
    return megabytes(pid)


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of the server so far."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(values: list[float], share: float) -> float:
    return round(float(np.quantile(values, share)), 3)


def measure(url: str, pid: int, options: argparse.Namespace) -> dict:
    rounds, processor, resident = [], [], []
    each, alone = [], []
    worst, off, told = 0, 0, {}
    for number in range(options.rounds):
        numbers = list(range(number * options.size, (number + 1) * options.size))
        start = cpu_seconds(pid)
        together, found = at_once(url, numbers, options.clients)
        middle = cpu_seconds(pid)
        if len(found) != len(numbers):
            raise AssertionError(f"{len(numbers) - len(found)} requests are lost")
        one_by_one, again = at_once(url, numbers, 1)
        processor.append((middle - start, cpu_seconds(pid) - middle))
        resident.append(round(megabytes(pid)))
        for key in numbers:
            difference = int(np.abs(found[key][1] - again[key][1]).max())
            worst, off = max(worst, difference), off + (difference > 1)
        each += [seconds for seconds, _ in found.values()]
        alone += [seconds for seconds, _ in again.values()]
        rounds.append((together, one_by_one))
        told = summary(rounds, processor, each, alone, options) | {
            "largest_difference_in_levels": worst,
            "pictures_off_by_more_than_one_level": off,
            "memory_mb_after_each_round": resident,
            "queue": httpx.get(f"{url}/api/queue").json(),
        }
        sys.stderr.write(json.dumps(told) + "\n")
    return told


def summary(
    rounds: list[tuple[float, float]],
    processor: list[tuple[float, float]],
    each: list[float],
    alone: list[float],
    options: argparse.Namespace,
) -> dict:
    """A summary of the rounds so far."""
    total = len(rounds) * options.size
    ratios = [b / a for a, b in rounds]
    return {
        "requests": total,
        "clients": options.clients,
        "lost": 0,
        "mixed_up": 0,
        "pictures_a_second": round(total / sum(a for a, _ in rounds), 3),
        "pictures_a_second_one_after_another": round(total / sum(b for _, b in rounds), 3),
        "times_faster": round(sum(b for _, b in rounds) / sum(a for a, _ in rounds), 2),
        "times_faster_by_round": [round(r, 2) for r in ratios],
        "times_faster_median": round(statistics.median(ratios), 2),
        "processor_seconds_a_picture": round(sum(a for a, _ in processor) / total, 3),
        "processor_seconds_a_picture_alone": round(sum(b for _, b in processor) / total, 3),
        "times_less_processor_time": round(
            sum(b for _, b in processor) / sum(a for a, _ in processor), 2
        ),
        "seconds_median": percentile(each, 0.5),
        "seconds_99th": percentile(each, 0.99),
        "seconds_alone_median": percentile(alone, 0.5),
        "seconds_alone_99th": percentile(alone, 0.99),
        "load_average": round(os.getloadavg()[0], 1),
        "cpus": len(os.sched_getaffinity(0)),
    }


def memory(url: str, pid: int, options: argparse.Namespace) -> dict:
    """Resident memory after 50 requests and after all of them."""
    at_once(url, list(range(10_000, 10_050)), options.clients)
    early = settled(pid)
    for start in range(50, options.memory, 50):
        at_once(url, list(range(10_000 + start, 10_050 + start)), options.clients)
        sys.stderr.write(f"{start + 50} requests: {megabytes(pid):.0f} MB\n")
    late = settled(pid)
    return {
        "memory_mb_after_50": round(early),
        f"memory_mb_after_{options.memory}": round(late),
        "memory_growth_percent": round(100 * (late / early - 1), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=40, help="requests of a round")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--memory", type=int, default=0, help="requests of the memory test")
    parser.add_argument("--model", default="default")
    parser.add_argument("--warm", action="store_true", help="the windows are measured already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlx_starflow", "serve", "--port", "0", "--output", folder,
             "--model", options.model],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            url = re.search(r"http://\S+", server.stderr.readline())[0]
            threading.Thread(target=server.stderr.read, daemon=True).start()
            vocabulary = httpx.get(f"{url}/api/capabilities").json()["vocabulary"] or {}
            PROMPTS[:] = vocabulary.get("kinds", {}).get("class", PROMPTS)
            # The sampler's windows are measured once for every size of a batch: not in the figures.
            for count in range(1, 2 if options.warm else options.clients + 1):
                body = {"prompt": PROMPTS[0], "n": min(count, 10)}
                httpx.post(f"{url}/v1/images/generations", json=body, timeout=600)
            at_once(url, list(range(20_000, 20_000 + 2 * options.clients)), options.clients)
            told = {}
            if options.rounds:
                told |= measure(url, server.pid, options)
            if options.memory:
                told |= memory(url, server.pid, options)
            sys.stdout.write(json.dumps(told, indent=2) + "\n")
        finally:
            server.terminate()
            server.wait(10)


if __name__ == "__main__":
    main()

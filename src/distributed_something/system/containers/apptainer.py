"""Calls Apptainer, or Singularity: a container is a process of the caller, and an image is a file.

Images are converted once, into files (SIF) in the project's `.ds/images`, which the nodes of a cluster share.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...errors import DsError
from ..state import make_private
from .box import PULL_SECONDS, Box, End, Mount, csv_mount
from .docker import call


@dataclass(frozen=True)
class Apptainer:
    """Calls Apptainer by the path of its command; `project` is the folder that image files lie in."""

    program: str
    project: Path
    name: ClassVar[str] = "apptainer"
    tells: ClassVar[bool] = False

    def alive(self) -> str:
        """Returns its version. Raises DsError."""
        return call(self.program, "version").strip()

    def file(self, image: str) -> Path:
        """Returns the file of an image: a .sif that the config names, or what a registry's becomes."""
        if image.endswith(".sif") and "://" not in image:
            return self.project / image
        return self.project / ".ds/images" / f"{hashlib.sha256(image.encode()).hexdigest()[:16]}.sif"

    def digest(self, image: str) -> str | None:
        """Returns the digest in the image's name; else size and time of its file."""
        if "@sha256:" in image:
            return image.rpartition("@")[2]
        with suppress(OSError):
            found = self.file(image).stat()
            return f"sif:{found.st_size}-{found.st_mtime_ns}"
        return None

    def has_image(self, image: str) -> bool:
        """Whether the image's file is there."""
        return self.file(image).exists()

    def pull(self, image: str) -> None:
        """Pulls an image and converts it; a half-made file is never used. Raises DsError."""
        file = self.file(image)
        if file.parent.name != "images" or file.parent.parent.name != ".ds":
            raise DsError(
                f"DOCKERHUB_TAG: {file}: No such file", "name a .sif file of the project, or an image"
            )
        make_private(file.parent)
        made = file.with_name(f"{file.stem}-{os.urandom(4).hex()}.sif")
        try:
            source = image if "://" in image else f"docker://{image}"
            call(self.program, "pull", str(made), source, seconds=PULL_SECONDS)
            made.replace(file)
        except (DsError, OSError) as error:
            what = error.what if isinstance(error, DsError) else str(error)
            fix = f"correct DOCKERHUB_TAG, or {Path(self.program).name} registry login"
            raise DsError(f"the image {image} cannot be pulled: {what}", fix) from error
        finally:
            made.unlink(missing_ok=True)

    def options(self, box: Box) -> Sequence[str]:
        """Makes an empty folder for /tmp, and one in the place of the hidden folder, with room for mounts."""
        temporary, mask = _temporary(box), _mask(box)
        for folder in (temporary, mask):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, parents=True)
        for each in box.inside():
            (mask / Path(each.target).relative_to(box.hidden)).mkdir(parents=True, exist_ok=True)
        return ()

    def words(self, box: Box) -> tuple[list[str], dict[str, str]]:
        """Returns the command that runs a container, and the variables of that command."""
        hidden = [Mount(str(_mask(box)), box.hidden, read_only=True)] if box.hidden else []
        words = [
            *(self.program, "--quiet", "exec", "--containall", "--no-privs", "--no-eval"),
            *("--workdir", str(_temporary(box)), "--pwd", box.folder),
            *(["--nv"] if box.nvidia else ["--rocm"] if box.amd else []),
            *(word for each in (*box.outside(), *hidden, *box.inside()) for word in _bind(each)),
            str(self.file(box.image)),
            *box.argv,
        ]
        prefix = f"{Path(self.program).name.upper()}ENV_"
        variables = {**box.given, **box.own, **box.secrets}
        if box.nvidia:
            variables["CUDA_VISIBLE_DEVICES"] = box.nvidia
        return words, {f"{prefix}{name}": value for name, value in variables.items()}

    def end_of(self, _name: str) -> End:
        """Knows nothing: its own process has told."""
        return End(False, "", "", "")

    def remove(self, _names: Sequence[str]) -> None:
        """Nothing is left to remove: containers end with their process."""

    def labelled(self, _label: str, _value: str) -> list[str]:
        """Containers are processes of their worker: none is left without it."""
        return []


def _temporary(box: Box) -> Path:
    return box.home.with_suffix(".tmp")


def _mask(box: Box) -> Path:
    return box.home.with_suffix(".mask")


def _bind(mount: Mount) -> tuple[str, str]:
    read_only = ["ro"] if mount.read_only else []
    return csv_mount("type=bind", f"src={mount.source}", f"dst={mount.target}", *read_only)

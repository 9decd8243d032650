"""Projects as users of the reference system and its children have them: each family's own files."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "moving"
NAMES = sorted(folder.name for folder in FOLDER.iterdir() if folder.is_dir())

_CONFIGS = {"printgroups": "cellprofiler"}
"""Projects that have another one's config: only the job file differs."""


def config_of(name: str) -> Path:
    """The folder of a project's config."""
    return FOLDER / _CONFIGS.get(name, name)


def bring(name: str, folder: Path, more: str = "") -> Path:
    """Puts a project's own files into a folder, `more` lines behind its config. Returns the job file."""
    (folder / "config.py").write_text((config_of(name) / "config.py").read_text() + more)
    jobs = folder / "files" / "exampleJob.json"
    jobs.parent.mkdir(exist_ok=True)
    jobs.write_bytes((FOLDER / name / "jobs.json").read_bytes())
    return jobs


def fill_in_fleet(folder: Path, account: str, ids: dict[str, str]) -> Path:
    """Writes the children's fleet file with the account's number and `ids`, by the kind of each."""
    text = (FOLDER / "fleet.json").read_text().replace("XXXXXXXXXXXX", account)
    for kind, found in ids.items():
        text = text.replace(f"{kind}-XXXXXXXX", found)
    path = folder / "files" / "exampleFleet.json"
    path.write_text(text.replace("your_key_file", "key"))
    return path

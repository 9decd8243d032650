"""Writes docs/config.md from the table of keys: python docs/make_config.py"""

from __future__ import annotations

from pathlib import Path

from distributed_something.inputs.keys import KEYS, Key, Kind

HEAD = """# Configuration

`config.py` holds lines `KEY = value`. It is read as data and never executed: literals, names defined above,
arithmetic, `+`, lists, dictionaries and f-strings. `config.toml` with the same keys is read the same way.
Booleans may be `True`, `'True'` or `'true'`. Any other key in capitals is handed to the command as an
environment variable of that name.

Of these, the engine `local` uses `APP_NAME`, `ENGINE`, `COMMAND` or `HANDLER`, `INPUTS`, `OUTPUT`,
`STORE`, `JOB_TIMEOUT`, `JOB_RETRIES`, `MAX_RUN_HOURS`, `ENVIRONMENT`, `SETUP`, `ENVIRONMENT_FILE`,
`SCRATCH`, `DOCKER_CORES` x `TASKS_PER_MACHINE` (jobs at a time; one a processor if `DOCKER_CORES` is
missing), `SECONDS_TO_START`, `CHECK_IF_DONE_BOOL`, `EXPECTED_NUMBER_FILES`, `MIN_FILE_SIZE_BYTES` and
`NECESSARY_STRING`; in containers also `DOCKERHUB_TAG`, `CONTAINERS`, `MEMORY`, `CPU_SHARES` and
`MOUNT_BUCKET` (see `docs/images.md`). It reads and checks the others all the same.

| key | value | default | meaning |
| --- | --- | --- | --- |
"""


def row(key: Key) -> str:
    """One key as a row of the table."""
    value = " or ".join(
        [*(["`True` or `False`"] if key.kind is Kind.SWITCH else []), *(f"`{each}`" for each in key.choices)]
    )
    value = value or str(key.kind)
    if key.unit:
        value += f" ({key.unit})"
    bounds = [f"from {key.low:g}"] if key.low is not None else []
    bounds += [f"more than {key.above:g}"] if key.above is not None else []
    bounds += [f"to {key.high:g}"] if key.high is not None else []
    default = "required" if key.required else "" if key.default in (None, "", (), {}) else f"`{key.default}`"
    return f"| `{key.name}` | {', '.join([value, *bounds])} | {default} | {key.meaning} |"


def text() -> str:
    """The whole page."""
    return HEAD + "\n".join(map(row, KEYS)) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "config.md").write_text(text())

"""A stand-in for Apptainer, which cannot be had where the tests run."""

from __future__ import annotations

from pathlib import Path

APPTAINER = """#!/bin/sh -e
# Records each request, then does it without a container. What it cannot do is named in the test.
echo "$*" >> "$0.calls"
case "$1" in
version) echo 1.3.4; exit ;;
pull) if [ -e "$0.refuses" ]; then echo half > "$2"; echo "FATAL:   no such image" >&2; exit 255; fi
    echo "of $3" > "$2"; exit ;;
esac
while [ "$1" != -- ]; do
    case "$1" in
    --pwd) cd "$2"; shift 2 ;;
    --workdir | --mount) shift 2 ;;
    *.sif) grep -q "^of " "$1"; shift; set -- -- "$@" ;;
    *) shift ;;
    esac
done
shift
for each in $(env | sed -n "s/^APPTAINERENV_\\([^=]*\\)=.*/\\1/p"); do
    eval "export $each=\\"\\$APPTAINERENV_$each\\""
done
exec "$@"
"""


def stand_in(folder: Path, name: str, text: str = "#!/bin/sh\necho 1\n") -> Path:
    """A program in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return folder / name

"""Joins the Parquet files of all jobs, for the collecting job. pyarrow is loaded only for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engine import Store
from ...errors import UsageError
from .collect import Outputs, files_of_jobs, key_columns, read_list

if TYPE_CHECKING:
    import pyarrow

_ANOTHER = "COLLECT = 'parquet:NAME.parquet', with files of the same columns"


def join_parquet(store: Store, key: str, name: str, path: Path, check: Callable[[], None]) -> int:
    """Join the Parquet files of all jobs, with a job's keys before its columns. Returns the number of rows.

    One file is in memory at a time. The first file's columns are those of all: the columns of a later one are
    converted to them if no value changes by it. Raises UsageError, naming the job, if that fails.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        fix = "pip install 'distributed-something[parquet]' there, or COLLECT = 'csv'"
        raise UsageError("COLLECT = 'parquet': pyarrow is not installed where the workers run", fix) from None
    listed = read_list(store, key)
    keys = _typed_keys(arrow, listed)
    writer: Any = None
    rows = 0
    try:
        for outputs, data in files_of_jobs(store, listed, name, "parquet"):
            check()
            try:
                found = parquet.read_table(arrow.BufferReader(data))
                if writer is None:
                    header = found.schema
                    names = key_columns(keys, header.names)
                    types = [*keys.values(), *header.types]
                    joined = arrow.schema(zip([*names, *header.names], types, strict=True))
                    writer = parquet.ParquetWriter(path, joined)
                elif found.schema.names != header.names:
                    raise ValueError(f"its columns are {', '.join(found.schema.names)[:200]}")
                found = found.cast(header)
            except (arrow.ArrowException, ValueError) as error:
                why = str(error).splitlines()[0][:300]
                raise UsageError(f"job {outputs.id} ({outputs.prefix}): {why}", _ANOTHER) from error
            own = [_column(arrow, outputs.group.get(each), kind, len(found)) for each, kind in keys.items()]
            writer.write_table(arrow.table([*own, *found.columns], schema=joined))
            rows += len(found)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise UsageError(f"COLLECT = 'parquet': no job has a file {name}", _ANOTHER)
    return rows


def _typed_keys(arrow: pyarrow, listed: Sequence[Outputs]) -> Mapping[str, Any]:
    """Returns the jobs' keys with the type of their columns: text, if not all are numbers or truth values."""
    kinds: dict[str, set[type]] = {}
    for outputs in listed:
        for name, value in outputs.group.items():
            kinds.setdefault(name, set()).add(type(value))
    chosen = {}
    for name, found in kinds.items():
        some = found - {type(None)}
        if some == {bool}:
            chosen[name] = arrow.bool_()
        elif some == {int}:
            chosen[name] = arrow.int64()
        elif some and some <= {int, float}:
            chosen[name] = arrow.float64()
        else:
            chosen[name] = arrow.string()
    return chosen


def _column(arrow: pyarrow, value: Any, kind: Any, rows: int) -> Any:
    """Returns a column of one value."""
    if value is not None and kind == arrow.string():
        value = str(value)
    return arrow.repeat(arrow.scalar(value, kind), rows)

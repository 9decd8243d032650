"""Keeps what happened to every job of a run, as lines of JSON in the store, and folds it into states.

    runs/<APP_NAME>/<run>/jobs/<segment>.jsonl     {"id": "...", "job": {...}}      written by submit
                         /events/<writer>.jsonl    {"t": ..., "event": "...", ...}  written by workers
                         /logs/<writer>.log        what the jobs printed, one after another

Segments only grow, each has one writer, and their order does not matter. A line that is cut short
(its writer was killed, or is still writing) is left for the next look. Workers and commands write it; every
command that shows a run reads it.
"""

from .events import Entry, Event, LedgerWriter, event, event_lines, name_of
from .fold import Fold
from .joblist import job_bodies, job_ids, job_line, parse_job_line, write_jobs
from .records import LEFT_QUEUE, JobRecord
from .segments import RunPaths, SegmentReader

__all__ = [
    "LEFT_QUEUE",
    "Entry",
    "Event",
    "Fold",
    "JobRecord",
    "LedgerWriter",
    "RunPaths",
    "SegmentReader",
    "event",
    "event_lines",
    "job_bodies",
    "job_ids",
    "job_line",
    "name_of",
    "parse_job_line",
    "write_jobs",
]

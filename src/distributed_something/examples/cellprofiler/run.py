"""The four steps: python run.py setup | submitJob JOBFILE | startCluster [FLEETFILE] | monitor [RECORD]."""

from distributed_something.cli import main

if __name__ == "__main__":
    raise SystemExit(main(reference=True))

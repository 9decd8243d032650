"""What is run, and how. Lines are KEY = value; nothing here is executed."""

APP_NAME = "WriteOmeZarr"  # names everything that belongs to this project
ENGINE = "local"  # where the jobs run: on this computer

# THE WORK
HANDLER = "to_zarr:write"  # for each job: the function write() of to_zarr.py
INPUTS = ["images/{Image}.png"]  # what a job needs; {Image} comes from files/exampleJob.json
OUTPUT = "zarr/{Image}"  # where its results go: a folder of many small files
STORE = "data"  # the folder in which the two paths above are

# WHEN SOMETHING GOES WRONG
JOB_TIMEOUT = 300  # seconds; a job that takes longer is stopped
JOB_RETRIES = 2  # how often a job is tried before it is given up

# STARTING AGAIN
CHECK_IF_DONE_BOOL = "True"  # skip images that are written already

"""What is run, and how. Lines are KEY = value; nothing here is executed."""

APP_NAME = "CountNuclei"  # names everything that belongs to this project
ENGINE = "local"  # where the jobs run: on this computer

# THE WORK
HANDLER = "measure:measure"  # for each job: the function measure() of measure.py
INPUTS = ["images/{Image}.png"]  # what a job needs; {Image} comes from files/exampleJob.json
OUTPUT = "results/{Image}"  # where its results go
STORE = "data"  # the folder in which the two paths above are
COLLECT = "collect:collect"  # at the end, once: the function collect() of collect.py, for all results

# WHEN SOMETHING GOES WRONG
JOB_TIMEOUT = 60  # seconds; a job that takes longer is stopped
JOB_RETRIES = 2  # how often a job is tried before it is given up

# STARTING AGAIN
CHECK_IF_DONE_BOOL = "True"  # skip images whose results are there already

"""What is run, and how. Lines are KEY = value; nothing here is executed."""

APP_NAME = "WordCount"  # names everything that belongs to this project
ENGINE = "local"  # where the jobs run: on this computer

# THE WORK
# {input_dir} and {output_dir} are folders of the job; the other names are keys of files/exampleJob.json
COMMAND = 'sh "$DS_PROJECT_DIR/words.sh" {input_dir}/{Text} {Letters} {Seconds} {output_dir}/words.txt'
INPUTS = ["texts/{Text}"]  # what a job needs
OUTPUT = "words/{Text}"  # where its results go
STORE = "data"  # the folder in which the two paths above are

# WHEN SOMETHING GOES WRONG
JOB_TIMEOUT = 2  # seconds; a job that takes longer is stopped
JOB_RETRIES = 2  # how often a job is tried before it is given up

# STARTING AGAIN
CHECK_IF_DONE_BOOL = "True"  # skip texts whose results are there already

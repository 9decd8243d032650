"""What is run, and how. Lines are KEY = value; nothing here is executed."""

APP_NAME = "MeasureWithImageJ"  # names everything that belongs to this project
ENGINE = "local"  # where the jobs run: on this computer

# THE WORK
# ImageJ needs a screen even in a batch: xvfb-run is one. Debian's and Ubuntu's imagej puts ij.jar there
COMMAND = (
    'xvfb-run -a java -jar /usr/share/java/ij.jar -batch "$DS_PROJECT_DIR/measure.ijm"'
    " {input_dir}/{Image}.png:{output_dir}:{SmallestArea}"
)
FILES = ["measure.ijm"]  # travels with the jobs
INPUTS = ["images/{Image}.png"]  # what a job needs; {Image} comes from files/exampleJob.json
OUTPUT = "objects/{Image}"  # where its results go
STORE = "data"  # the folder in which the two paths above are

# WHEN SOMETHING GOES WRONG
JOB_TIMEOUT = 120  # seconds; a job that takes longer is stopped
JOB_RETRIES = 2  # how often a job is tried before it is given up

# STARTING AGAIN
CHECK_IF_DONE_BOOL = "True"  # skip images whose results are there already

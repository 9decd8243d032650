"""What is run, and how. Lines are KEY = value; nothing here is executed."""

APP_NAME = "NucleiWithCellProfiler"  # names everything that belongs to this project
ENGINE = "local"  # where the jobs run: on this computer

# THE WORK
# -c -r: without windows; -i: where the images are, as the job has them; -g: this job's group of the table
COMMAND = (
    'cellprofiler -c -r -p "$DS_PROJECT_DIR"/{pipeline} --data-file "$DS_PROJECT_DIR"/{data_file}'
    " -g {Metadata} -i {input_dir} -o {output_dir}"
)
FILES = ["nuclei.cppipe", "load_data.csv"]  # travel with the jobs
INPUTS = ["images/{Well}.png"]  # what a job needs; {Well} comes from files/exampleJob.json
OUTPUT = "nuclei/{Well}"  # where its results go
STORE = "data"  # the folder in which the two paths above are

# WHEN SOMETHING GOES WRONG
JOB_TIMEOUT = 600  # seconds; a job that takes longer is stopped
JOB_RETRIES = 2  # how often a job is tried before it is given up

# STARTING AGAIN
CHECK_IF_DONE_BOOL = "True"  # skip images whose results are there already

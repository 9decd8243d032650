# Constants (User configurable)

APP_NAME = 'DistributedSomething'                # Used to generate derivative names unique to the application.

# DOCKER REGISTRY INFORMATION:
DOCKERHUB_TAG = 'lab/distributed-something:sometag'

# AWS GENERAL SETTINGS:
AWS_REGION = 'us-east-1'
AWS_PROFILE = 'default'                 # The same profile used by your AWS CLI installation
SSH_KEY_NAME = 'your-key-file.pem'      # Expected to be in ~/.ssh
AWS_BUCKET = 'your-bucket-name'

# EC2 AND ECS INFORMATION:
ECS_CLUSTER = 'default'
CLUSTER_MACHINES = 3
TASKS_PER_MACHINE = 1
MACHINE_TYPE = ['m5.xlarge']
MACHINE_PRICE = 0.10
EBS_VOL_SIZE = 30                       # In GB.  Minimum allowed is 22.
ASSIGN_IP = 'True'

# DOCKER INSTANCE RUNNING ENVIRONMENT:
DOCKER_CORES = 1                        # Number of processes to run inside a docker container
CPU_SHARES = DOCKER_CORES * 1024        # ECS computing units assigned to each docker container (1024 units = 1 core)
MEMORY = 4096                           # Memory assigned to the docker container in MB
SECONDS_TO_START = 3*60                 # Wait before the next process is initiated to avoid memory collisions

# SQS QUEUE INFORMATION:
SQS_QUEUE_NAME = APP_NAME + 'Queue'
SQS_MESSAGE_VISIBILITY = 1*60           # Timeout (secs) for messages in flight (average time to be processed)
SQS_DEAD_LETTER_QUEUE = 'user_DeadMessages'

# LOG GROUP INFORMATION:
LOG_GROUP_NAME = APP_NAME
AUTO_MONITOR = 'False'

# CLOUDWATCH DASHBOARD CREATION
CREATE_DASHBOARD = 'False'
CLEAN_DASHBOARD = 'True'

# REDUNDANCY CHECKS
CHECK_IF_DONE_BOOL = 'False'            # True or False- should it check if there are a certain number of non-empty files and delete the job if yes?
EXPECTED_NUMBER_FILES = 7
MIN_FILE_SIZE_BYTES = 1
NECESSARY_STRING = ''

# PUT ANYTHING SPECIFIC TO YOUR PROGRAM DOWN HERE
MY_VARIABLE = 'my value'

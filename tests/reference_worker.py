"""A worker as images made for the reference have it: it knows the queue and the bucket, and nothing of us.

It reads one message at a time by a long poll, deletes it after success, and otherwise shows it again later.
Inputs it reads from the mounted bucket.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import boto3

MOUNT = Path("/home/ubuntu/bucket")


def work(message: dict[str, Any], bucket: Any) -> None:
    """A job: it copies its input, and fails where FIRST_FAILS names it and it has not been tried before."""
    well = message["group"]["Well"]
    tried = f"tried/{well}"
    if well == os.environ["FIRST_FAILS"] and not list(bucket.objects.filter(Prefix=tried)):
        bucket.put_object(Key=tried, Body=b"")
        raise RuntimeError("the first attempt fails")
    text = (MOUNT / message["input"] / f"{well}.txt").read_bytes()
    bucket.put_object(Key=f"{message['output']}/{well}.txt", Body=text + os.environ["APP_NAME"].encode())


def main() -> None:
    """Poll until killed."""
    sqs = boto3.client("sqs", region_name=os.environ["AWS_REGION"])
    bucket = boto3.resource("s3", region_name=os.environ["AWS_REGION"]).Bucket(os.environ["AWS_BUCKET"])
    queue = os.environ["SQS_QUEUE_URL"]
    while True:
        for message in sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=20).get("Messages", ()):
            handle = message["ReceiptHandle"]
            try:
                work(json.loads(message["Body"]), bucket)
            except Exception as error:  # noqa: BLE001  whatever it is, the job is shown again
                print(f"failed: {error}", flush=True)
                sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=handle, VisibilityTimeout=2)
            else:
                print("done", flush=True)
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=handle)


if __name__ == "__main__":
    main()

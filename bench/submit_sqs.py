"""Submitting jobs to SQS: SqsQueue.put beside one send_message a job, against an endpoint that takes 15 ms.

    python -m bench.submit_sqs [JOBS] [--connections N]

The endpoint answers as SQS does (ids and MD5s), counts the messages it was given, and keeps none. It runs in
a process of its own on this machine, so it takes its share of the processors.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from distributed_something.aws.sqs.queue import SqsQueue
from distributed_something.aws.sqs.queues import QueueUrls
from distributed_something.job import Job
from distributed_something.s3.session import AwsSession

DELAY = 0.015
REFERENCE_JOBS = 300
JOB_BYTES = 300
"""Of a job's body, about."""


class Endpoint:
    """The least that passes for SQS."""

    def __init__(self) -> None:
        self.messages = 0

    async def serve(self, told: Connection) -> None:
        server = await asyncio.start_server(self.converse, "127.0.0.1", 0, backlog=512)
        told.send(server.sockets[0].getsockname()[1])
        asyncio.get_running_loop().add_reader(told.fileno(), self.tell, told)
        await server.serve_forever()

    def tell(self, told: Connection) -> None:
        told.recv()
        told.send(self.messages)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
                body = json.loads(await reader.readexactly(size))
                await asyncio.sleep(DELAY)
                answer = json.dumps(self.answer(body)).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(answer), answer)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def answer(self, request: dict[str, object]) -> dict[str, object]:
        entries = request.get("Entries")
        if not isinstance(entries, list):
            self.messages += 1
            return stored("0", str(request["MessageBody"]))
        self.messages += len(entries)
        return {"Successful": [stored(each["Id"], each["MessageBody"]) for each in entries]}


def stored(name: str, body: str) -> dict[str, object]:
    return {"Id": name, "MessageId": name, "MD5OfMessageBody": hashlib.md5(body.encode()).hexdigest()}


def serve(told: Connection) -> None:
    asyncio.run(Endpoint().serve(told))


@contextmanager
def endpoint() -> Iterator[tuple[str, Connection]]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}", ours
    finally:
        process.terminate()
        process.join()


def counted(told: Connection) -> int:
    told.send(None)
    messages: int = told.recv()
    return messages


def jobs(count: int) -> Iterator[Job]:
    for number in range(count):
        group = {"Metadata": f"Plate={number // 384},Well={number % 384}", "n": number}
        body = json.dumps({"pipeline": "analysis.cppipe", "output": "p" * 180, "group": group}).encode()
        yield Job(hashlib.sha256(body).hexdigest()[:16], number, body)


def one_by_one(session: AwsSession, url: str, count: int) -> float:
    """Messages a second, as the reference submits."""
    client = session.client("sqs")
    client.send_message(QueueUrl=url, MessageBody="warm")
    began = time.perf_counter()
    for job in jobs(count):
        client.send_message(QueueUrl=url, MessageBody=job.body.decode())
    return count / (time.perf_counter() - began)


def by_queue(session: AwsSession, url: str, count: int, connections: int) -> tuple[float, float]:
    """Messages a second, and a second of our own processor time."""
    ready = list(jobs(count))
    with SqsQueue(session, QueueUrls(url, url), run="bench", connections=connections) as queue:
        queue.put(jobs(0))
        began, used = time.perf_counter(), time.process_time()
        report = queue.put(ready)
        seconds, used = time.perf_counter() - began, time.process_time() - used
    assert report.sent == count, report
    return count / seconds, count / used


def streamed(session: AwsSession, url: str, count: int, connections: int) -> tuple[float, float]:
    """Messages a second where each job is made just before it is sent, and by how many MB memory grew."""
    with SqsQueue(session, QueueUrls(url, url), run="stream", connections=connections) as queue:
        queue.put(jobs(0))
        before, began = peak_mb(), time.perf_counter()
        report = queue.put(jobs(count))
        seconds = time.perf_counter() - began
    assert report.sent == count, report
    return count / seconds, peak_mb() - before


def peak_mb() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(count: int = 100_000, connections: int = 64) -> None:
    """Compare, with at least 100,000 jobs: fewer are sent before all connections are open."""
    count = max(count, 100_000)
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
    with endpoint() as (address, told):
        session, url = AwsSession("us-east-1", endpoint=address), f"{address}/123456789012/bench"
        reference = one_by_one(session, url, REFERENCE_JOBS)
        before = counted(told)
        stream, grown = streamed(session, url, count, connections)
        ours, by_core = by_queue(session, url, count, connections)
        assert counted(told) - before == 2 * count, "the endpoint counted something else"
    print(f"one send_message a job, one thread   {reference:10,.0f} messages/s        1 x")
    print(f"SqsQueue.put, {connections} connections {ours:19,.0f} messages/s {ours / reference:8,.0f} x")
    print(f"  a second of processor time         {by_core:10,.0f} messages")
    print(
        f"  jobs made as they are sent         {stream:10,.0f} messages/s, memory {grown:+.0f} MB"
        f" for {count * JOB_BYTES / 1e6:,.0f} MB of jobs"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", type=int, nargs="?", default=100_000)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    main(options.jobs, options.connections)

"""What is SQS's own in the queue of the aws engine, against the emulator."""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.exceptions import ConnectTimeoutError

from distributed_something.aws.sqs.batching import Batcher, Submitted
from distributed_something.aws.sqs.queue import SqsQueue
from distributed_something.aws.sqs.queues import QueueNames, QueueUrls, find_queues
from distributed_something.aws.sqs.send import _Signer
from distributed_something.aws.sqs.worker_queue import WorkersQueue
from distributed_something.clock import SystemClock
from distributed_something.engine import Counts, PutReport
from distributed_something.errors import DsError, Unreachable, UsageError
from distributed_something.job import MAX_DELIVERIES, Cause, Job, RetryPolicy
from distributed_something.s3.session import AwsSession
from distributed_something.testing import FakeClock
from emulating import (
    REGION,
    EmulatorClock,
    delete_queues,
    endpoint,
    ensure_queues,
    new_queues,
    session,
    stopped_clock,
)

TERM = 120.0
HOUR = 3600.0


@pytest.fixture
def client() -> Any:
    return session().client("sqs")


@pytest.fixture
def clock(client: Any) -> Iterator[EmulatorClock]:
    with stopped_clock() as clock:
        yield clock


@pytest.fixture
def urls(clock: EmulatorClock) -> QueueUrls:
    return new_queues()


@pytest.fixture
def queue(urls: QueueUrls, clock: EmulatorClock) -> Iterator[SqsQueue]:
    with opened(urls, clock) as queue:
        yield queue


def opened(urls: QueueUrls, clock: Any, **more: Any) -> SqsQueue:
    return SqsQueue(session(), urls, **{"run": "r1", "term": TERM, "clock": clock, "connections": 4, **more})


def job(number: int, size: int = 0) -> Job:
    body = json.dumps({"group": {"n": number, "pad": "x" * size}}, separators=(",", ":")).encode()
    return Job(hashlib.sha256(body).hexdigest()[:16], number, body)


def jobs(count: int) -> list[Job]:
    return [job(number) for number in range(count)]


def messages(client: Any, url: str) -> list[Any]:
    """All that can be received from a queue, which stays hidden."""
    words = {"MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"], "VisibilityTimeout": 600}
    found: list[Any] = []
    while received := client.receive_message(QueueUrl=url, **words).get("Messages"):
        found += received
    return found


# Messages


@pytest.mark.fault(28)
def test_the_body_is_the_references_and_our_facts_travel_beside_it(queue: SqsQueue, client: Any) -> None:
    queue.put([job(5)])
    (message,) = messages(client, queue.urls.jobs)
    assert message["Body"].encode() == job(5).body
    facts = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert facts == {"DsJob": job(5).id, "DsIndex": "0", "DsRun": "r1", "DsAttempt": "1"}


def test_any_text_arrives_as_it_was(queue: SqsQueue) -> None:
    body = json.dumps({"group": {"n": 'é "quoted" \\ \x00 \x1b 🙂 \u2028 </a>'}}, ensure_ascii=False).encode()
    queue.put([Job("00000000000000aa", 0, body)])
    assert queue.lease(1)[0].job.body == body


def test_a_message_of_the_references_submit_is_a_job_with_the_id_that_ours_gives_it(
    queue: SqsQueue, client: Any, tmp_path: Path
) -> None:
    from distributed_something.inputs.jobs.jobfile import JobFile

    document = {"output": "s3://b/out", "Metadata": "", "group": {"z": 1.5, "a": "é"}}
    client.send_message(QueueUrl=queue.urls.jobs, MessageBody=json.dumps(document))
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps({"output": "s3://b/out", "Metadata": "", "groups": [document["group"]]}))
    (lease,) = queue.lease(5)
    (ours,) = JobFile(file).jobs()
    assert (lease.job.id, lease.job.body, lease.attempt) == (ours.id, ours.body, 1)
    queue.done([lease])
    assert queue.counts() == Counts()


@pytest.mark.parametrize("body", ["not JSON", '"a text"', "[1, 2]", "{", "[" * 5000])
def test_a_body_that_is_no_job_is_parked_with_a_reason_and_the_jobs_behind_it_go_on(
    queue: SqsQueue, client: Any, body: str
) -> None:
    client.send_message(QueueUrl=queue.urls.jobs, MessageBody=body)
    queue.put([job(1)])
    assert [lease.job.id for lease in queue.lease(5)] == [job(1).id]
    (dead,) = queue.dead()
    assert (dead.cause, dead.job.body) == (Cause.INPUT_MISSING, body.encode())
    assert dead.detail.startswith("the message is no job: not ")
    assert queue.redrive() == [dead.job.id]
    assert queue.lease(5) == []
    assert queue.counts() == Counts(leased=1, dead=1)


def test_the_reason_of_a_dead_job_survives_whatever_it_holds(queue: SqsQueue) -> None:
    queue.put([job(1), job(2, 1_048_400)])
    detail = "\x1b[31mred\x00 \ufffe 🙂\n" + "y" * 5000
    for lease in queue.lease(2):
        queue.fail(lease, Cause.EXIT, detail, final=True)
    first, second = queue.dead()
    assert first.detail == detail[:2000]
    assert (second.cause, second.detail) == (Cause.EXIT, "")  # no room beside such a body


# Submitting


def test_batches_are_filled_by_count_and_by_bytes(queue: SqsQueue) -> None:
    given = [job(number, 10) for number in range(25)] + [job(100 + number, 300_000) for number in range(7)]
    batches = list(Batcher(Submitted(tuple), "r1").batches(given))
    assert [len(batch) for batch in batches] == [10, 10, 8, 3, 1]
    assert queue.put(given) == PutReport(sent=32)
    assert {lease.job.id for lease in queue.lease(40)} == {each.id for each in given}


def test_a_job_that_sqs_would_refuse_or_change_is_reported_and_the_others_are_sent(queue: SqsQueue) -> None:
    odd = Job("00000000000000bb", 1, '{"group": {"n": "\uffff"}}'.encode())
    report = queue.put([job(1), odd, job(2, 1_048_576), job(3)])
    assert (report.sent, report.known) == (2, 0)
    assert [job_id for job_id, _ in report.failed] == [odd.id, job(2, 1_048_576).id]
    assert [why for _, why in report.failed] == [
        "it holds U+FFFE or U+FFFF, which SQS replaces",
        "it has 1,048,690 bytes, and SQS takes no more than 1,048,576",
    ]
    assert queue.put([odd]).known == 0


def test_jobs_submitted_by_an_earlier_process_are_known(urls: QueueUrls, clock: EmulatorClock) -> None:
    with opened(urls, clock, known=lambda: (each.id for each in jobs(3))) as queue:
        assert queue.put(jobs(5)) == PutReport(sent=2, known=3)
        assert [lease.job.index for lease in queue.lease(9)] == [3, 4]


class Answers(BaseHTTPRequestHandler):
    """An SQS that follows a script: what it says to the first calls; then all is well."""

    protocol_version = "HTTP/1.1"
    script: list[Any]
    bodies: list[Any]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        step = self.script.pop(0) if self.script else set()
        if step == "hang up":
            self.close_connection = True
        elif isinstance(step, set):
            self.answer(200, self.outcome(body["Entries"], step))
        else:
            self.answer(*step)

    def outcome(self, entries: list[Any], throttled: set[int]) -> dict[str, Any]:
        bodies = {int(each["Id"]): each["MessageBody"] for each in entries}
        failed = [
            {"Id": str(number), "Code": "InternalError", "SenderFault": False}
            for number in throttled & set(bodies)
        ]
        stored = [
            {"Id": str(number), "MessageId": "m", "MD5OfMessageBody": hashlib.md5(body.encode()).hexdigest()}
            for number, body in bodies.items()
            if number not in throttled
        ]
        return {"Successful": stored, "Failed": failed}

    def answer(self, status: int, document: Any) -> None:
        text = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted(client: Any) -> Iterator[Any]:
    """A queue whose SQS follows a script: (queue, script, what it was asked)."""
    handler = type("Scripted", (Answers,), {"script": [], "bodies": []})
    with serving(handler) as port:
        address = f"http://127.0.0.1:{port}"
        urls = QueueUrls(f"{address}/1/jobs", f"{address}/1/dead")
        aws = AwsSession(REGION, endpoint=address)
        with SqsQueue(aws, urls, clock=FakeClock(), connections=1) as queue:
            yield queue, handler.script, handler.bodies


def asked(bodies: list[Any]) -> list[list[int]]:
    return [[json.loads(each["MessageBody"])["group"]["n"] for each in body["Entries"]] for body in bodies]


def test_only_the_entries_that_failed_are_sent_again(scripted: Any) -> None:
    queue, script, bodies = scripted
    script += [{1, 3}, {0}]
    assert queue.put(jobs(5)) == PutReport(sent=5)
    assert asked(bodies) == [[0, 1, 2, 3, 4], [1, 3], [1]]


THROTTLED = (400, {"__type": "com.amazonaws.sqs#RequestThrottled", "message": "slow down"})


@pytest.mark.parametrize("trouble", [(503, b"<html>no"), (500, {}), (200, b""), THROTTLED, "hang up"])
def test_trouble_that_passes_costs_no_job(scripted: Any, trouble: Any) -> None:
    queue, script, bodies = scripted
    script += [trouble, trouble]
    assert queue.put(jobs(15)) == PutReport(sent=15)
    assert asked(bodies) == [list(range(10))] * 3 + [list(range(10, 15))]


def test_trouble_that_stays_is_an_error_and_the_jobs_can_be_submitted_again(scripted: Any) -> None:
    queue, script, _ = scripted
    script += [set()] + [(503, b"")] * 100
    with pytest.raises(DsError, match="HTTP status 503"):
        queue.put(jobs(30))
    script.clear()
    assert queue.put(jobs(30)) == PutReport(sent=20, known=10)


def test_a_refusal_is_told_at_once_and_with_its_fix(scripted: Any) -> None:
    queue, script, bodies = scripted
    script.append((400, {"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "no such queue"}))
    with pytest.raises(DsError, match="no such queue") as raised:
        queue.put(jobs(1))
    assert (raised.value.fix, len(bodies)) == ("ds setup", 1)


def test_what_sqs_stored_is_compared_with_what_was_sent(scripted: Any) -> None:
    queue, script, _ = scripted
    stored = {"Successful": [{"Id": "0", "MessageId": "m", "MD5OfMessageBody": "0" * 32}]}
    script.append((200, stored))
    report = queue.put(jobs(1))
    assert report.failed == ((job(0).id, "SQS stored something else than was sent"),)


class Tunnel(BaseHTTPRequestHandler):
    """A proxy: passes on what is sent in the clear, and joins both ends of what is encrypted."""

    seen: list[str]

    def do_CONNECT(self) -> None:
        self.seen.append(f"CONNECT {self.path} {self.headers.get('Proxy-Authorization')}")
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port))) as there:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=self.pump, args=(there, self.connection), daemon=True)
            back.start()
            self.pump(self.connection, there)

    @staticmethod
    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: Any, context: ssl.SSLContext | None = None) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of 127.0.0.1, with its key, that only itself vouches for."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    start = datetime(2020, 1, 1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, start, datetime(2120, 1, 1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(made.public_bytes(form[0]) + key.private_bytes(*form))
    return path


@pytest.mark.parametrize("proxied", [False, True])
def test_submitting_is_encrypted_and_goes_through_a_proxy(
    client: Any, certificate: Path, monkeypatch: pytest.MonkeyPatch, proxied: bool
) -> None:
    handler = type("Scripted", (Answers,), {"script": [], "bodies": []})
    tunnel = type("Proxy", (Tunnel,), {"seen": []})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(handler, context) as port, serving(tunnel) as proxy:
        if proxied:
            monkeypatch.setenv("HTTPS_PROXY", f"http://lab:pass%20word@127.0.0.1:{proxy}")
        address = f"https://127.0.0.1:{port}"
        urls = QueueUrls(f"{address}/1/jobs", f"{address}/1/dead")
        with (
            SqsQueue(AwsSession(REGION, endpoint=address), urls, clock=FakeClock(), connections=1) as queue,
            pytest.raises(DsError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            queue.put(jobs(1))
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        with SqsQueue(AwsSession(REGION, endpoint=address), urls, clock=FakeClock(), connections=1) as queue:
            assert queue.put(jobs(15)) == PutReport(sent=15)
    credentials = base64.b64encode(b"lab:pass word").decode()
    assert set(tunnel.seen) == ({f"CONNECT 127.0.0.1:{port} Basic {credentials}"} if proxied else set())


def test_signatures_are_those_that_botocore_makes(client: Any) -> None:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    url, body = "https://sqs.eu-west-1.amazonaws.com", b'{"QueueUrl": "u"}'
    signer = _Signer(session(), url)
    while True:  # until both signed in the same second
        ours = dict(line.split(": ", 1) for line in signer.headers("SendMessageBatch", body).splitlines())
        named = {name: ours[name] for name in ("Content-Type", "X-Amz-Target")}
        request = AWSRequest("POST", url, named, body)
        SigV4Auth(session().credentials().get_frozen_credentials(), "sqs", REGION).add_auth(request)
        if request.headers["X-Amz-Date"] == ours["X-Amz-Date"]:
            break
    assert ours == dict(request.headers.items())


# Leases


LONG_TERM = 1800.0
"""Terms of jobs that run for days, so that the test does not renew a thousand times."""


@pytest.mark.fault(15)
def test_a_job_of_thirty_hours_is_leased_once_and_ends_once(urls: QueueUrls, clock: EmulatorClock) -> None:
    with opened(urls, clock, term=LONG_TERM) as queue, opened(urls, clock) as other:
        queue.put([job(1)])
        held = queue.lease(1)
        until = clock.now() + 30 * HOUR
        while clock.now() < until:
            held, lost = queue.renew(held)
            assert lost == []
            assert other.lease(5) == []
            clock.advance(LONG_TERM * 0.9)
        assert queue.counts() == Counts(leased=1)
        queue.done(held)
        clock.advance(HOUR)
        assert other.lease(5) == []
        assert queue.counts() == Counts()


@pytest.mark.fault(15, 17)
def test_a_carried_job_whose_worker_is_lost_goes_to_another(urls: QueueUrls, clock: EmulatorClock) -> None:
    with opened(urls, clock, term=LONG_TERM) as queue, opened(urls, clock) as other:
        queue.put([job(1)])
        held = queue.lease(1)
        until = clock.now() + 13 * HOUR
        while clock.now() < until:
            held, _ = queue.renew(held)
            clock.advance(LONG_TERM * 0.9)
        clock.advance(LONG_TERM)
        assert queue.counts() == Counts(waiting=1)
        (lease,) = other.lease(5)
        assert (lease.job.id, lease.attempt, lease.deliveries) == (job(1).id, 1, 2)
        assert queue.renew(held) == ([], held)
        assert other.fail(lease, Cause.EXIT) is None
        clock.advance(60)
        assert [(each.attempt, each.job.id) for each in other.lease(5)] == [(2, job(1).id)]
        assert queue.counts() == Counts(leased=1)


class SetClock:
    """A clock whose time of day somebody has set; what it measures is what it was."""

    def __init__(self, clock: EmulatorClock) -> None:
        self._clock = clock
        self.ahead = 0.0

    def now(self) -> float:
        return self._clock.now() + self.ahead

    def monotonic(self) -> float:
        return self._clock.monotonic()


@pytest.mark.fault(15)
@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_a_clock_that_is_set_loses_no_lease(urls: QueueUrls, clock: EmulatorClock, jump: float) -> None:
    set_clock = SetClock(clock)
    with opened(urls, set_clock) as queue:
        queue.put(jobs(2))
        held = queue.lease(2)
        set_clock.ahead = jump
        held, lost = queue.renew(held)
        assert (len(held), lost) == (2, [])
        set_clock.ahead = 0.0
        queue.done(held[:1])
        queue.release(held[1:])
        assert queue.counts() == Counts(waiting=1)


@pytest.mark.fault(15)
@pytest.mark.parametrize("settle", [False, True])
def test_sqs_says_whether_a_lease_whose_time_seems_over_is_ours(
    queue: SqsQueue, client: Any, clock: EmulatorClock, settle: bool
) -> None:
    queue.put(jobs(2))
    kept, over = queue.lease(2)
    hidden = {"ReceiptHandle": kept.token, "VisibilityTimeout": 600}
    client.change_message_visibility(QueueUrl=queue.urls.jobs, **hidden)  # a renewal whose answer was lost
    clock.advance(TERM + 1)
    if not settle:
        renewed, lost = queue.renew([kept, over])
        assert ([lease.token for lease in renewed], lost) == ([kept.token], [over])
        assert queue.renew([over]) == ([], [over])
    queue.done([kept, over])
    assert queue.counts() == Counts(waiting=1)


def test_without_a_carried_queue_a_lease_ends_after_twelve_hours(
    urls: QueueUrls, clock: EmulatorClock
) -> None:
    with opened(QueueUrls(urls.jobs, urls.dead), clock, term=LONG_TERM) as queue:
        queue.put([job(1)])
        held, lost, began = queue.lease(1), [], clock.now()
        while not lost and clock.now() - began < 20 * HOUR:
            held, lost = queue.renew(held)
            clock.advance(LONG_TERM * 0.9)
        assert [lease.job.id for lease in lost] == [job(1).id]
        assert clock.now() - began == pytest.approx(12 * HOUR, abs=LONG_TERM)


def test_a_copy_that_was_just_sent_is_left_to_its_owner(queue: SqsQueue, clock: EmulatorClock) -> None:
    queue.put([job(1)])
    (message,) = messages(session().client("sqs"), queue.urls.jobs)
    attributes = {**message["MessageAttributes"], "DsCarried": {"DataType": "String", "StringValue": "mark"}}
    words = {"MessageBody": message["Body"], "MessageAttributes": attributes}
    session().client("sqs").send_message(QueueUrl=queue.urls.carried, **words)
    assert queue.lease(1) == []
    clock.advance(61)
    assert [lease.job.id for lease in queue.lease(1)] == [job(1).id]


@pytest.mark.fault(17)
def test_a_job_that_nobody_gives_an_outcome_ends_among_the_dead(
    queue: SqsQueue, clock: EmulatorClock
) -> None:
    queue.put([job(1)])
    for _ in range(5 * MAX_DELIVERIES):
        assert len(queue.lease(1)) == 1
        clock.advance(TERM)
    assert queue.lease(1) == []
    (dead,) = queue.dead()
    assert (dead.job.id, dead.attempt, dead.cause) == (job(1).id, 1, Cause.WORKER_LOST)


@pytest.mark.fault(25)
def test_an_empty_queue_is_polled_long(urls: QueueUrls, clock: EmulatorClock) -> None:
    with opened(urls, SystemClock()) as queue:
        clock.follow()
        threading.Timer(0.7, queue.put, [[job(1)]]).start()
        began = time.monotonic()
        assert [lease.job.id for lease in queue.lease(1, wait=10.0)] == [job(1).id]
        assert 0.5 < time.monotonic() - began < 5.0


def test_reading_the_dead_leaves_them_there(queue: SqsQueue) -> None:
    queue.put(jobs(35))
    for lease in queue.lease(35):
        queue.fail(lease, Cause.TIMEOUT, f"job {lease.job.index}", final=True)
    for _ in range(2):
        assert [dead.detail for dead in queue.dead()] == [f"job {number}" for number in range(35)]
    assert sorted(queue.redrive([job(3).id, job(30).id])) == sorted([job(3).id, job(30).id])
    assert len(list(queue.dead())) == 33


def test_sqss_own_way_back_from_the_dead_works_too(
    queue: SqsQueue, client: Any, clock: EmulatorClock
) -> None:
    queue.put([job(1)])
    queue.fail(queue.lease(1)[0], Cause.EXIT, final=True)
    arn = client.get_queue_attributes(QueueUrl=queue.urls.dead, AttributeNames=["QueueArn"])["Attributes"]
    client.start_message_move_task(SourceArn=arn["QueueArn"])
    tasks = client.list_message_move_tasks(SourceArn=arn["QueueArn"])["Results"]
    assert [task["Status"] for task in tasks] == ["COMPLETED"]
    assert [lease.job.id for lease in queue.lease(1)] == [job(1).id]


def test_a_queue_that_is_gone_is_an_error_with_its_fix(queue: SqsQueue, client: Any) -> None:
    client.delete_queue(QueueUrl=queue.urls.jobs)
    with pytest.raises(DsError, match="does not exist") as raised:
        queue.lease(1)
    assert raised.value.fix == "ds setup"


# Settings


def settings(client: Any, url: str) -> dict[str, str]:
    found: dict[str, str] = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return found


@pytest.mark.fault(16, 17, 18)
def test_queues_are_made_once_and_brought_in_line_when_the_config_changes(clock: Any, client: Any) -> None:
    names = QueueNames("lab-queue", "arn:aws:sqs:us-east-1:123456789012:lab-dead")
    urls = ensure_queues(session(), names, visibility=300)
    found = settings(client, urls.jobs)
    assert ensure_queues(session(), names, visibility=300) == urls
    assert settings(client, urls.jobs) == found
    assert (found["VisibilityTimeout"], found["MessageRetentionPeriod"]) == ("300", "1209600")
    assert settings(client, urls.dead)["MessageRetentionPeriod"] == "1209600"
    redrive = json.loads(found["RedrivePolicy"])
    assert redrive["deadLetterTargetArn"].endswith(":lab-dead")
    assert int(redrive["maxReceiveCount"]) > MAX_DELIVERIES
    assert client.list_queue_tags(QueueUrl=urls.jobs)["Tags"] == {"ds:app": "lab", "ds:run": "run1"}

    client.set_queue_attributes(QueueUrl=urls.dead, Attributes={"MessageRetentionPeriod": "345600"})
    assert ensure_queues(session(), names, visibility=60) == urls
    assert settings(client, urls.dead)["MessageRetentionPeriod"] == "1209600"
    for url in (urls.jobs, urls.carried):
        assert settings(client, str(url))["VisibilityTimeout"] == "60"
    delete_queues(session(), names)


@pytest.mark.fault(35, 36, 42)
def test_a_queue_is_found_by_its_whole_name_only(clock: Any, client: Any) -> None:
    for name in ("lab-default", "default-2", "lab-default-dead", "my_default"):
        client.create_queue(QueueName=name)
    assert find_queues(session(), QueueNames("default", "default-dead")) is None
    assert find_queues(session(), QueueNames("lab-default", "lab-default-dead")) is not None
    delete_queues(session(), QueueNames("default", "default-dead"))
    assert len(client.list_queues(QueueNamePrefix="lab-default")["QueueUrls"]) == 2


def test_a_name_without_room_for_the_third_queue_is_refused() -> None:
    with pytest.raises(UsageError, match="too long"):
        QueueNames("q" * 75, "dead")


# Sessions


@pytest.mark.fault(41)
def test_clients_use_the_region_and_profile_they_were_given(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    before = boto3.DEFAULT_SESSION
    config = tmp_path / "config"
    config.write_text(
        "[profile lab]\naws_access_key_id = AKLAB\naws_secret_access_key = s\nregion = eu-west-1\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    assert AwsSession(None, "lab").region == "eu-west-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    lab = AwsSession("eu-north-1", "lab")
    assert lab.client("sqs").meta.region_name == "eu-north-1"
    assert lab.credentials().get_frozen_credentials().access_key == "AKLAB"
    assert boto3.DEFAULT_SESSION is before


@pytest.mark.fault(29)
def test_an_absent_profile_is_an_error_that_says_what_to_do(client: Any) -> None:
    with pytest.raises(DsError, match="nobody") as raised:
        AwsSession(REGION, "nobody").client("sqs")
    assert "AWS_PROFILE in the config" in raised.value.fix


def test_no_credentials_and_no_region_are_errors_that_say_what_to_do(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(DsError, match="no AWS credentials"):
        AwsSession(REGION).credentials()
    with pytest.raises(DsError, match="no AWS region") as raised:
        _ = AwsSession().region
    assert raised.value.fix == "set AWS_REGION in the config"


def test_an_address_where_nobody_answers_is_an_error_that_says_what_to_do(client: Any) -> None:
    nowhere = AwsSession(REGION, endpoint="http://127.0.0.1:9")
    aws = SqsQueue(nowhere, QueueUrls("http://127.0.0.1:9/1/q", "http://127.0.0.1:9/1/d"), clock=FakeClock())
    with aws, pytest.raises(DsError, match=r"127\.0\.0\.1:9") as raised:
        aws.put(jobs(1))
    assert "network" in raised.value.fix


# Many at once

PROCESSES, THREADS, JOBS = 2, 16, 2000


def work(address: str, urls: QueueUrls, ended: Any) -> None:
    """A worker process: leases, gives some back, fails some once, and finishes each."""
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    finished: Counter[int] = Counter()
    lock = threading.Lock()
    policy = RetryPolicy(attempts=3, backoff=0.0)
    with SqsQueue(AwsSession(REGION, endpoint=address), urls, term=60, policy=policy) as queue:

        def slot() -> None:
            while leases := queue.lease(7, wait=2.0):
                done = []
                for lease in leases:
                    if lease.job.index % 50 == 0 and lease.attempt == 1:
                        queue.fail(lease, Cause.EXIT)
                    elif lease.job.index % 50 == 1 and lease.deliveries == 1:
                        queue.release([lease])
                    else:
                        done.append(lease)
                queue.done(done)
                with lock:
                    finished.update(lease.job.keys["n"] for lease in done)

        threads = [threading.Thread(target=slot) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    ended.put(finished)


def test_many_workers_lose_no_job_and_do_none_twice(clock: EmulatorClock) -> None:
    urls = new_queues()
    clock.follow()
    with opened(urls, SystemClock()) as queue:
        assert queue.put(jobs(JOBS)).sent == JOBS
        context = multiprocessing.get_context("spawn")
        ended = context.Queue()
        workers = [context.Process(target=work, args=(endpoint(), urls, ended)) for _ in range(PROCESSES)]
        for worker in workers:
            worker.start()
        finished = sum((ended.get(timeout=120) for _ in workers), Counter[int]())
        for worker in workers:
            worker.join(30)
        ended.close()
        assert finished == Counter(range(JOBS))
        assert queue.counts() == Counts()


def test_a_submission_by_many_connections_sends_each_job_once(urls: QueueUrls, clock: EmulatorClock) -> None:
    with SqsQueue(session(), urls, clock=clock, connections=16) as queue:
        assert queue.put(job(number % 900) for number in range(1000)) == PutReport(sent=900, known=100)
        leases = queue.lease(1000)
        assert Counter(lease.job.id for lease in leases) == Counter(each.id for each in jobs(900))
        assert sorted(lease.job.index for lease in leases) == list(range(900))


class FailingSession:
    """A session whose client receives ten jobs, then finds the network away."""

    then: Callable[[], None] = staticmethod(lambda: None)

    def client(self, *_: object, **__: object) -> FailingSession:
        self.answers = iter([[{"Body": json.dumps({"n": n}), "ReceiptHandle": str(n)} for n in range(10)]])
        return self

    def receive_message(self, **_: object) -> dict[str, object]:
        self.then()
        for messages in self.answers:
            return {"Messages": messages}
        raise ConnectTimeoutError(endpoint_url="sqs")

    def change_message_visibility_batch(self, **_: object) -> None:
        raise ConnectTimeoutError(endpoint_url="sqs")


@pytest.mark.fault(19)
def test_jobs_received_before_an_error_are_the_callers() -> None:
    queue = SqsQueue(cast("AwsSession", FailingSession()), QueueUrls("https://x/jobs", "https://x/dead"))
    assert len(queue.lease(20)) == 10
    with pytest.raises(Unreachable):
        queue.lease(20)


@pytest.mark.fault(19)
def test_jobs_that_a_leaving_worker_cannot_give_back_are_still_its_own() -> None:
    leaving = FailingSession()
    urls = QueueUrls("https://x/jobs", "https://x/dead")
    queue = WorkersQueue(cast("AwsSession", leaving), urls, clock=SystemClock())
    leaving.then = queue.leave
    assert len(queue.lease(10)) == 10

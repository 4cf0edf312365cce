"""The bucket, the queues and the rule between them: locally what template.yaml is on AWS."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from local.home import BUCKET, PREFIX, REGION
from magpie.ingest.parking import STAGES, WITH_QUEUES

VISIBILITY_SECONDS = 30  # a batch that is not done by then is handed out again
# The functions park an event themselves, with its reason, after MAGPIE_MAX_RECEIVES (5) failures. The queue
# does it after so many, for events that never come to a function's own judgement.
REDRIVE_AFTER = 10
RULE = f"{PREFIX}-uploads"


@dataclass(frozen=True)
class Queues:
    """URL of the queue of each function that has one, and of its dead-letter queue."""

    work: Mapping[str, str]
    parked: Mapping[str, str]

    def after(self, stage: str) -> str:
        """The queue that takes what a stage's events become; none after the last."""
        following = dict(itertools.pairwise(STAGES))
        return self.work[following[stage]] if stage in following else ""


@dataclass(frozen=True)
class Depth:
    """How many messages a stage has."""

    waiting: int
    in_flight: int
    parked: int


def client(service: str, url: str) -> Any:
    """A boto3 client of the local AWS."""
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106 - the local AWS has no secrets
        config=Config(signature_version="s3v4" if service == "s3" else None, retries={"mode": "standard"}),
    )


def ensure(url: str) -> Queues:
    """Create what is missing; all of it may be there already, or have gone with a killed process."""
    _ensure_bucket(client("s3", url))
    queues = _ensure_queues(client("sqs", url))
    _ensure_rule(client("events", url), client("sqs", url), queues.work[STAGES[0]])
    return queues


def queues(url: str) -> Queues:
    """The queues as they are."""
    sqs = client("sqs", url)
    return Queues(
        {stage: sqs.get_queue_url(QueueName=f"{PREFIX}-{stage}")["QueueUrl"] for stage in WITH_QUEUES},
        {stage: sqs.get_queue_url(QueueName=f"{PREFIX}-{stage}-parked")["QueueUrl"] for stage in WITH_QUEUES},
    )


def depths(url: str) -> dict[str, Depth]:
    """Stage -> how many messages its queues have."""
    sqs = client("sqs", url)
    found = queues(url)
    return {
        stage: Depth(*_count(sqs, found.work[stage]), sum(_count(sqs, found.parked[stage])))
        for stage in WITH_QUEUES
    }


def _count(sqs: Any, queue: str) -> tuple[int, int]:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    values = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return int(values[names[0]]), int(values[names[1]])


def _ensure_bucket(s3: Any) -> None:
    try:
        s3.head_bucket(Bucket=BUCKET)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_notification_configuration(
        Bucket=BUCKET, NotificationConfiguration={"EventBridgeConfiguration": {}}
    )


def _ensure_queues(sqs: Any) -> Queues:
    """Parking queues last: an event that finds no queue to go on to must find none to be parked in either."""
    work = {stage: sqs.create_queue(QueueName=f"{PREFIX}-{stage}")["QueueUrl"] for stage in WITH_QUEUES}
    parked = {
        stage: sqs.create_queue(QueueName=f"{PREFIX}-{stage}-parked")["QueueUrl"] for stage in WITH_QUEUES
    }
    for stage in WITH_QUEUES:
        redrive = {"deadLetterTargetArn": _arn(sqs, parked[stage]), "maxReceiveCount": REDRIVE_AFTER}
        attributes = {"VisibilityTimeout": str(VISIBILITY_SECONDS), "RedrivePolicy": json.dumps(redrive)}
        sqs.set_queue_attributes(QueueUrl=work[stage], Attributes=attributes)
        sqs.set_queue_attributes(QueueUrl=parked[stage], Attributes={"MessageRetentionPeriod": "1209600"})
    return Queues(work, parked)


def _arn(sqs: Any, queue: str) -> str:
    answer = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    return str(answer["Attributes"]["QueueArn"])


def _ensure_rule(events: Any, sqs: Any, queue: str) -> None:
    """Every picture that arrives under a customer's catalogue goes to detection."""
    pattern = {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {
            "bucket": {"name": [BUCKET]},
            "object": {"key": [{"wildcard": "customers/*/catalogue/*"}]},
        },
    }
    events.put_rule(Name=RULE, EventPattern=json.dumps(pattern), State="ENABLED")
    events.put_targets(Rule=RULE, Targets=[{"Id": "detection", "Arn": _arn(sqs, queue)}])

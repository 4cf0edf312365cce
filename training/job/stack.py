"""What a deployed stack has for training: found by the stack's name, from its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from magpie.errors import FailedPrecondition, InvalidArgument, MagpieError, NotFound
from training.job import aws
from training.job.s3_folder import S3Folder

# Field -> output of template.yaml.
_OUTPUTS = {
    "bucket": "BucketName",
    "queue": "TrainingQueue",
    "definition": "TrainingJob",
    "repository": "TrainingRepository",
    "log_group": "TrainingLogGroup",
}


@dataclass(frozen=True)
class TrainingStack:
    """Names and addresses; ARNs for the queue and the job definition."""

    name: str
    bucket: str
    queue: str
    definition: str
    repository: str  # URI
    log_group: str

    def run(self, name: str) -> S3Folder:
        """Where a run lies."""
        return S3Folder(self.bucket, f"training/{name}/")

    def data(self, name: str) -> S3Folder:
        """Where a data set lies."""
        return S3Folder(self.bucket, f"data/{name}/")

    def own_data(self, address: str) -> S3Folder:
        """A data set by its address. Raises InvalidArgument if a job may not read it."""
        folder = S3Folder.parse(address, "--data")
        if folder.bucket != self.bucket or not folder.prefix.startswith("data/"):
            raise InvalidArgument(
                "--data", f"{folder}: a job reads what lies below s3://{self.bucket}/data/ alone"
            )
        return folder


def find(name: str) -> TrainingStack:
    """Raises NotFound without such a stack, FailedPrecondition if it has no training resources."""
    try:
        with aws.answers(f"stack {name}"):
            stacks = aws.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    except MagpieError as error:
        cause = error.__cause__
        if isinstance(cause, ClientError) and "does not exist" in str(cause):
            raise NotFound(f"there is no stack {name} here: deploy it, or name yours with --stack") from error
        raise
    outputs = {item["OutputKey"]: item["OutputValue"] for item in stacks[0].get("Outputs", [])}
    missing = [output for output in _OUTPUTS.values() if output not in outputs]
    if missing:
        raise FailedPrecondition(
            f"stack {name} has no training resources: deploy it with `--parameter-overrides Training=on`"
        )
    return TrainingStack(name, **{field: outputs[output] for field, output in _OUTPUTS.items()})


def check_image(stack: TrainingStack) -> None:
    """Raise FailedPrecondition if the registry has no image to run: such a job would wait, then fail."""
    repository = stack.repository.split("/", 1)[-1]
    registry: Any = aws.client("ecr")
    absent = FailedPrecondition(
        f"{stack.repository} has no image yet: `make training-image STACK={stack.name}`"
    )
    try:
        with aws.answers(f"image {repository}"):
            pages = registry.get_paginator("describe_images").paginate(repositoryName=repository)
            tags = [
                tag for page in pages for image in page["imageDetails"] for tag in image.get("imageTags", [])
            ]
    except MagpieError as error:
        cause = error.__cause__
        if (
            isinstance(cause, ClientError)
            and cause.response["Error"]["Code"] == "RepositoryNotFoundException"
        ):
            raise absent from error
        raise
    if "latest" not in tags:
        raise absent

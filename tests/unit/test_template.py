"""Facts about template.yaml that `sam validate` does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
STAGES_WITH_QUEUES = ("Detection", "Embedding", "Search")


class CloudFormationLoader(yaml.SafeLoader):
    """Reads `!GetAtt A.B` as {"GetAtt": "A.B"}, and so on."""


def _intrinsic(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {tag: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {tag: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {tag: loader.construct_mapping(node, deep=True)}


CloudFormationLoader.add_multi_constructor("!", _intrinsic)
TEMPLATE: dict[str, Any] = yaml.load((ROOT / "template.yaml").read_text(), CloudFormationLoader)


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {
        name: resource["Properties"]
        for name, resource in TEMPLATE["Resources"].items()
        if resource["Type"] == kind
    }


FUNCTIONS = of_type("AWS::Serverless::Function")
QUEUES = of_type("AWS::SQS::Queue")
WORK_QUEUES = {name: queue for name, queue in QUEUES.items() if not name.endswith("ParkedQueue")}
GLOBALS = TEMPLATE["Globals"]["Function"]


def variables(function: dict[str, Any]) -> dict[str, Any]:
    return {**GLOBALS["Environment"]["Variables"], **function["Environment"]["Variables"]}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement that is granted to a function, with the name of its role or policy."""
    for name, role in of_type("AWS::IAM::Role").items():
        for policy in role.get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                yield name, statement["If"][1] if "If" in statement else statement
    for name, policy in of_type("AWS::IAM::ManagedPolicy").items():
        for statement in policy["PolicyDocument"]["Statement"]:
            yield name, statement


def test_the_five_functions_exist_and_their_handlers_are_files() -> None:
    assert {function["CodeUri"] for function in FUNCTIONS.values()} == {
        f"functions/{stage}/" for stage in ("detection", "embedding", "search", "reranking", "api")
    }
    for function in FUNCTIONS.values():
        module, entry = function.get("Handler", GLOBALS["Handler"]).split(".")
        source = (ROOT / function["CodeUri"] / f"{module}.py").read_text()
        assert re.search(rf"^(def {entry}\(|{entry}\b.*=)", source, re.MULTILINE), function["CodeUri"]


def test_the_layer_holds_the_committed_bundle_and_no_torch() -> None:
    recipe = (ROOT / "layer" / "Makefile").read_text()
    assert "../bundles/default" in recipe
    assert (ROOT / TEMPLATE["Resources"]["RuntimeLayer"]["Properties"]["ContentUri"] / "Makefile").is_file()
    assert "torch" not in recipe


@pytest.mark.parametrize("stage", STAGES_WITH_QUEUES)
def test_every_work_queue_parks_after_the_function_has_had_its_tries(stage: str) -> None:
    queue, function = WORK_QUEUES[f"{stage}Queue"], FUNCTIONS[f"{stage}Function"]
    redrive = queue["RedrivePolicy"]
    assert redrive["deadLetterTargetArn"] == {"GetAtt": f"{stage}ParkedQueue.Arn"}
    assert f"{stage}ParkedQueue" in QUEUES
    # The function parks with a reason first; the queue's redrive, which knows none, must come later.
    assert redrive["maxReceiveCount"] > int(variables(function)["MAGPIE_MAX_RECEIVES"])


def test_no_queue_is_without_a_stage() -> None:
    assert set(WORK_QUEUES) == {f"{stage}Queue" for stage in STAGES_WITH_QUEUES}
    assert len(QUEUES) == 2 * len(WORK_QUEUES)


@pytest.mark.parametrize("stage", STAGES_WITH_QUEUES)
def test_a_message_stays_hidden_six_times_as_long_as_its_function_may_run(stage: str) -> None:
    timeout = FUNCTIONS[f"{stage}Function"].get("Timeout", GLOBALS["Timeout"])
    assert WORK_QUEUES[f"{stage}Queue"]["VisibilityTimeout"] >= 6 * timeout


@pytest.mark.parametrize("stage", STAGES_WITH_QUEUES)
def test_event_sources_report_partial_failures_and_are_bounded(stage: str) -> None:
    (event,) = FUNCTIONS[f"{stage}Function"]["Events"].values()
    assert event["Properties"]["Queue"] == {"GetAtt": f"{stage}Queue.Arn"}
    assert event["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert event["Properties"]["ScalingConfig"]["MaximumConcurrency"] >= 2


def test_events_flow_from_the_bucket_through_every_stage() -> None:
    (rule,) = of_type("AWS::Events::Rule").values()
    assert rule["Targets"][0]["Arn"] == {"GetAtt": "DetectionQueue.Arn"}
    for stage, following in (("Detection", "Embedding"), ("Embedding", "Search")):
        assert variables(FUNCTIONS[f"{stage}Function"])["MAGPIE_NEXT_QUEUE_URL"] == {
            "Ref": f"{following}Queue"
        }
    assert "MAGPIE_NEXT_QUEUE_URL" not in variables(FUNCTIONS["SearchFunction"])
    for stage in STAGES_WITH_QUEUES:
        parking = variables(FUNCTIONS[f"{stage}Function"])["MAGPIE_PARKING_QUEUE_URL"]
        assert parking == {"Ref": f"{stage}ParkedQueue"}


@pytest.mark.parametrize("stage", STAGES_WITH_QUEUES)
def test_a_function_may_send_exactly_where_its_settings_point(stage: str) -> None:
    sends = [
        target["GetAtt"].removesuffix(".Arn")
        for role, statement in statements()
        if role == f"{stage}Role" and "sqs:SendMessage" in as_list(statement["Action"])
        for target in as_list(statement["Resource"])
    ]
    environment = variables(FUNCTIONS[f"{stage}Function"])
    named = [environment[name]["Ref"] for name in environment if name.endswith("_QUEUE_URL")]
    assert sorted(sends) == sorted(named)


def test_each_function_has_a_role_of_its_own() -> None:
    roles = [function["Role"]["GetAtt"] for function in FUNCTIONS.values()]
    assert len(set(roles)) == len(FUNCTIONS)


def test_nothing_is_granted_on_everything_but_what_aws_cannot_grant_otherwise() -> None:
    ungrantable = re.compile(
        r"^(ec2:(Create|Delete|Describe)NetworkInterfaces?|ec2:DescribeSubnets|xray:Put\w+)$"
    )
    for name, statement in statements():
        for action in as_list(statement["Action"]):
            assert "*" not in action, (name, action)
            if "*" in as_list(statement["Resource"]):
                assert ungrantable.match(action), (name, action)


def test_every_setting_in_the_template_is_one_that_settings_reads() -> None:
    known = set(re.findall(r"MAGPIE_[A-Z_]+", (ROOT / "shared" / "magpie" / "settings.py").read_text()))
    for name, function in FUNCTIONS.items():
        ours = {variable for variable in variables(function) if variable.startswith("MAGPIE_")}
        assert ours <= known, name


def test_the_bucket_is_private_encrypted_and_forgets_query_photos() -> None:
    (bucket,) = of_type("AWS::S3::Bucket").values()
    assert all(bucket["PublicAccessBlockConfiguration"].values())
    assert bucket["BucketEncryption"]
    rules = {rule["Id"]: rule for rule in bucket["LifecycleConfiguration"]["Rules"]}
    assert rules["query-photos-last-a-day"]["ExpirationInDays"] == 1
    assert rules["no-half-uploads"]["AbortIncompleteMultipartUpload"]


def test_the_cache_is_encrypted_has_a_password_and_lies_in_the_functions_network() -> None:
    (cache,) = of_type("AWS::ElastiCache::ReplicationGroup").values()
    assert cache["TransitEncryptionEnabled"] is True
    assert cache["AtRestEncryptionEnabled"] is True
    assert cache["AuthToken"]
    url = variables(FUNCTIONS["SearchFunction"])["MAGPIE_REDIS_URL"]["Sub"][0]
    assert url.startswith("rediss://:")
    ingress = of_type("AWS::EC2::SecurityGroup")["CacheSecurityGroup"]["SecurityGroupIngress"]
    assert [rule["SourceSecurityGroupId"] for rule in ingress] == [{"Ref": "FunctionSecurityGroup"}]


def test_every_parked_queue_has_an_alarm() -> None:
    watched = {
        alarm["Dimensions"][0]["Value"]["GetAtt"].removesuffix(".QueueName")
        for alarm in of_type("AWS::CloudWatch::Alarm").values()
    }
    assert watched == set(QUEUES) - set(WORK_QUEUES)


def test_search_and_api_start_from_a_snapshot() -> None:
    for name in ("SearchFunction", "ApiFunction"):
        assert FUNCTIONS[name]["SnapStart"] == {"ApplyOn": "PublishedVersions"}
        assert FUNCTIONS[name]["AutoPublishAlias"]

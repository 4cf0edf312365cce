"""Facts about template.yaml that `sam validate` does not know."""

from __future__ import annotations

import email
import json
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from magpie.index.compaction_round import BEGINS_WITHIN_SECONDS
from magpie.telemetry import ProbeMetrics
from training.job.entry import FAILED, TRY_AGAIN, parse

ROOT = Path(__file__).resolve().parents[2]
STAGES_WITH_QUEUES = ("Detection", "Embedding", "Search", "Probe")


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
    """Every statement granted to a function or a training job, with the name of its role or policy."""
    for name, role in of_type("AWS::IAM::Role").items():
        for policy in role.get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                yield name, statement["If"][1] if "If" in statement else statement
    for name, policy in of_type("AWS::IAM::ManagedPolicy").items():
        for statement in policy["PolicyDocument"]["Statement"]:
            yield name, statement


def test_the_eight_functions_exist_and_their_handlers_are_files() -> None:
    assert {function["CodeUri"] for function in FUNCTIONS.values()} == {
        f"functions/{name}/"
        for name in (
            "detection",
            "embedding",
            "search",
            "reranking",
            "api",
            "probe",
            "compaction",
            "changeover",
        )
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


@pytest.mark.parametrize("stage", (*STAGES_WITH_QUEUES, "Api"))
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
        r"^(ec2:(Create|Delete|Describe)NetworkInterfaces?|ec2:DescribeSubnets|xray:Put\w+"
        r"|ecr:GetAuthorizationToken)$"
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
        if alarm["Namespace"] == "AWS/SQS"
    }
    assert watched == set(QUEUES) - set(WORK_QUEUES)


def test_the_recall_alarm_watches_what_the_probe_reports(capsys: pytest.CaptureFixture[str]) -> None:
    ProbeMetrics().recall("shop", 0.5, 0.9)
    blobs = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    alarm = of_type("AWS::CloudWatch::Alarm")["LowRecallAlarm"]
    (reported,) = [blob for blob in blobs if alarm["MetricName"] in blob]
    (directive,) = reported["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == alarm["Namespace"]
    # CloudWatch knows a metric by all of its dimensions.
    assert directive["Dimensions"] == [[dimension["Name"] for dimension in alarm["Dimensions"]]]
    assert [reported[d["Name"]] for d in alarm["Dimensions"]] == [d["Value"] for d in alarm["Dimensions"]]
    assert (alarm["Statistic"], alarm["ComparisonOperator"]) == ("Minimum", "LessThanThreshold")
    assert reported[alarm["MetricName"]] == [0.9]


def test_searches_are_sampled_wherever_the_search_stage_runs() -> None:
    sampling = {name for name, f in FUNCTIONS.items() if "MAGPIE_PROBE_QUEUE_URL" in variables(f)}
    assert sampling == {"SearchFunction", "ApiFunction"}
    assert variables(FUNCTIONS["ApiFunction"])["MAGPIE_PROBE_RATE"] == {"Ref": "ProbeRate"}


def test_search_and_api_start_from_a_snapshot_unless_they_have_a_larger_disk() -> None:
    assert TEMPLATE["Parameters"]["IndexDiskMiB"]["Default"] == 512
    assert TEMPLATE["Conditions"]["SnapStartOffered"] == {"Equals": [{"Ref": "IndexDiskMiB"}, 512]}
    for name in ("SearchFunction", "ApiFunction"):
        offered = {"If": ["SnapStartOffered", "PublishedVersions", "None"]}
        assert FUNCTIONS[name]["SnapStart"] == {"ApplyOn": offered}
        assert FUNCTIONS[name]["EphemeralStorage"] == {"Size": {"Ref": "IndexDiskMiB"}}
        assert FUNCTIONS[name]["AutoPublishAlias"]


def granted(role: str, key: str) -> set[str]:
    """What a role may do with the bucket's object `key`."""
    return {
        action
        for name, statement in statements()
        if name == role
        for action in as_list(statement["Action"])
        for target in as_list(statement["Resource"])
        if fnmatch(key, str(target.get("Sub", "")).removeprefix("${Bucket.Arn}/"))
    }


def test_compaction_writes_indexes_and_sees_nothing_else_of_a_customer() -> None:
    index, picture = "customers/shop/index/default@1/1.snapshot", "customers/shop/catalogue/p/0"
    change = {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}
    assert granted("CompactionRole", index) == change
    assert granted("CompactionRole", picture) == set()
    for role in ("SearchRole", "ProbeRole"):
        assert granted(role, index) == {"s3:GetObject"}
        assert granted(role, picture) == set()
    assert "s3:GetObject" in granted("ApiRole", index)
    # Else a missing pointer reads as forbidden.
    for role in ("SearchRole", "ProbeRole", "ApiRole", "CompactionRole"):
        (lists,) = [s for name, s in statements() if name == role and s["Action"] == "s3:ListBucket"]
        assert lists["Resource"] == {"GetAtt": "Bucket.Arn"}
        assert "Condition" not in lists


def test_nothing_expires_that_is_not_a_query_photo() -> None:
    (bucket,) = of_type("AWS::S3::Bucket").values()
    for rule in bucket["LifecycleConfiguration"]["Rules"]:
        if set(rule) - {"Id", "Status", "AbortIncompleteMultipartUpload"}:
            assert rule["TagFilters"] == [{"Key": "magpie-kind", "Value": "query"}], rule["Id"]


def test_compaction_comes_each_minute_is_not_repeated_and_its_failures_are_told() -> None:
    assert FUNCTIONS["CompactionFunction"]["Timeout"] > BEGINS_WITHIN_SECONDS
    check_schedule("CompactionFunction")


def test_change_overs_send_to_detection_alone_and_their_failures_are_told() -> None:
    check_schedule("ChangeoverFunction")
    assert variables(FUNCTIONS["ChangeoverFunction"])["MAGPIE_NEXT_QUEUE_URL"] == {"Ref": "DetectionQueue"}
    (sends,) = [statement for name, statement in statements() if name == "ChangeoverRole"]
    assert (sends["Action"], sends["Resource"]) == ("sqs:SendMessage", {"GetAtt": "DetectionQueue.Arn"})
    next_bundle = variables(FUNCTIONS["ApiFunction"])["MAGPIE_NEXT_BUNDLE"]
    assert next_bundle == {"If": ["NextBundleInLayer", "/opt/bundles/next", ""]}
    assert TEMPLATE["Parameters"]["NextBundle"]["Default"] == "off"


def check_schedule(name: str) -> None:
    function = FUNCTIONS[name]
    (event,) = function["Events"].values()
    assert (event["Type"], event["Properties"]["Schedule"]) == ("Schedule", "rate(1 minute)")
    assert function["EventInvokeConfig"]["MaximumRetryAttempts"] == 0
    dimensions = [{"Name": "FunctionName", "Value": {"Ref": name}}]
    alarms = of_type("AWS::CloudWatch::Alarm").values()
    (alarm,) = [a for a in alarms if a["Namespace"] == "AWS/Lambda" and a["Dimensions"] == dimensions]
    assert alarm["MetricName"] == "Errors"
    # A lease lasts as long as the function may run: one that is killed fails once in so long.
    assert alarm["Period"] >= function["Timeout"]


TRAINING = {name: resource for name, resource in TEMPLATE["Resources"].items() if name.startswith("Training")}


def names_in(value: Any) -> Iterator[str]:
    """Every logical name that a value refers to."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "Ref":
                yield inner
            elif key == "GetAtt":
                yield inner.split(".")[0]
            elif key == "Sub":
                yield from re.findall(r"\$\{([A-Za-z0-9]+)", str(inner))
            yield from names_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names_in(inner)


def test_a_stack_without_training_has_nothing_of_it() -> None:
    assert TEMPLATE["Parameters"]["Training"]["Default"] == "off"
    assert TEMPLATE["Conditions"]["TrainingEnabled"] == {"Equals": [{"Ref": "Training"}, "on"]}
    assert TRAINING
    for name, resource in TEMPLATE["Resources"].items():
        assert (resource.get("Condition") == "TrainingEnabled") == (name in TRAINING), name
        if name not in TRAINING:
            assert not TRAINING.keys() & set(names_in(resource)), name
    for name, output in TEMPLATE["Outputs"].items():
        ours = bool(TRAINING.keys() & set(names_in(output["Value"])))
        assert (output.get("Condition") == "TrainingEnabled") == ours, name
    # The other way round it needs the bucket and nothing else.
    needed = {name for resource in TRAINING.values() for name in names_in(resource)}
    others = {name for name in needed if name in TEMPLATE["Resources"] and name not in TRAINING}
    assert others == {"Bucket"}


def test_training_machines_are_spot_gpus_and_none_while_nothing_runs() -> None:
    (machines,) = of_type("AWS::Batch::ComputeEnvironment").values()
    resources = machines["ComputeResources"]
    assert (resources["Type"], resources["AllocationStrategy"]) == ("SPOT", "SPOT_PRICE_CAPACITY_OPTIMIZED")
    assert resources["MinvCpus"] == 0
    assert "DesiredvCpus" not in resources
    assert resources["Ec2Configuration"][0]["ImageType"].endswith("NVIDIA")
    assert resources["InstanceTypes"] == {"Ref": "TrainingInstanceTypes"}
    # A run fits: its processors are within all, its memory within the families' smallest machine (16 GiB).
    defaults = {name: parameter.get("Default") for name, parameter in TEMPLATE["Parameters"].items()}
    assert defaults["TrainingVcpus"] <= defaults["TrainingMaxVcpus"]
    assert defaults["TrainingMemoryMiB"] < 15 * 1024


def test_an_interrupted_run_is_tried_again_and_a_failing_one_is_not() -> None:
    (job,) = of_type("AWS::Batch::JobDefinition").values()
    rules = job["RetryStrategy"]["EvaluateOnExit"]
    assert len(rules) <= 5  # what Batch takes
    assert rules[0] == {"Action": "RETRY", "OnStatusReason": "Host EC2*"}
    assert {"Action": "RETRY", "OnExitCode": str(TRY_AGAIN)} in rules
    assert rules[-1] == {"Action": "EXIT", "OnReason": "*"}
    assert str(FAILED) not in {rule.get("OnExitCode") for rule in rules}
    assert job["RetryStrategy"]["Attempts"] > 1
    assert job["Timeout"]["AttemptDurationSeconds"]


def test_a_run_has_one_gpu_a_log_and_room_for_its_loaders() -> None:
    (job,) = of_type("AWS::Batch::JobDefinition").values()
    container = job["ContainerProperties"]
    needs = {need["Type"]: need["Value"] for need in container["ResourceRequirements"]}
    assert needs["GPU"] == "1"
    assert container["LinuxParameters"]["SharedMemorySize"] >= 1024
    assert container["Privileged"] is False
    assert container["LogConfiguration"]["Options"]["awslogs-group"] == {"Ref": "TrainingLogs"}
    assert set(names_in(container["Image"])) == {"TrainingImages"}


def test_a_run_is_told_of_its_end_and_has_longer_than_its_own_grace() -> None:
    (launch,) = of_type("AWS::EC2::LaunchTemplate").values()
    script = launch["LaunchTemplateData"]["UserData"]["Fn::Base64"]
    assert "ECS_ENABLE_SPOT_INSTANCE_DRAINING=true" in script
    seconds = re.search(r"ECS_CONTAINER_STOP_TIMEOUT=(\d+)s", script)
    assert seconds
    grace = parse(["--run", "s3://b/training/r", "--data", "s3://b/data/d", "embedding"]).grace
    assert 2 * grace < int(seconds[1]) < 120  # the rest is for the upload; a spot machine has two minutes
    # cloud-init reads it as a message of parts: the boundary must be the one that is announced.
    message = email.message_from_string(script)
    (part,) = message.get_payload()
    assert part.get_content_type() == "text/x-shellscript"
    assert part.get_payload().strip().startswith("#!/bin/bash")


def test_a_run_reads_data_and_writes_training_and_sees_nothing_of_customers() -> None:
    granted = [
        (action, set(names_in(target)) and str(target), statement)
        for role, statement in statements()
        if role == "TrainingJobRole"
        for action in as_list(statement["Action"])
        for target in as_list(statement["Resource"])
    ]
    assert granted
    for action, target, statement in granted:
        if action == "s3:ListBucket":
            assert statement["Condition"] == {"StringLike": {"s3:prefix": ["data/*", "training/*"]}}
        else:
            folders = re.findall(r"\$\{Bucket\.Arn\}/(\w+)/\*", str(target))
            assert folders, target
            assert set(folders) <= ({"data", "training"} if action == "s3:GetObject" else {"training"})
    managed = {
        policy["Sub"].rsplit("/", 1)[-1]
        for name, role in of_type("AWS::IAM::Role").items()
        if name in TRAINING
        for policy in role.get("ManagedPolicyArns", [])
    }
    assert managed == {"AmazonEC2ContainerServiceforEC2Role"}  # the agent's, on the machine alone


def test_training_has_a_network_of_its_own_that_nobody_can_enter() -> None:
    subnets = {name for name in of_type("AWS::EC2::Subnet") if name in TRAINING}
    (machines,) = of_type("AWS::Batch::ComputeEnvironment").values()
    assert {subnet["Ref"] for subnet in machines["ComputeResources"]["Subnets"]} == subnets
    assert {of_type("AWS::EC2::Subnet")[name]["VpcId"]["Ref"] for name in subnets} == {"TrainingNetwork"}
    group = of_type("AWS::EC2::SecurityGroup")["TrainingSecurityGroup"]
    assert "SecurityGroupIngress" not in group
    assert [rule["FromPort"] for rule in group["SecurityGroupEgress"]] == [443]
    # The functions' network has no way out, with training or without.
    ways_out = of_type("AWS::EC2::Route").values()
    assert {way["RouteTableId"]["Ref"] for way in ways_out} == {"TrainingRoutes"}

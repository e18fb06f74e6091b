# SPDX-License-Identifier: Apache-2.0
"""Asks an emulated AWS (moto) which calls a policy lets through.

Started with the endpoint as its argument, when the server counts its first SETUP_CALLS requests as free. Reads one JSON
object a line, {"policy": DOCUMENT, "calls": ["ec2:Action", ...]}, and answers each with a list: for each call "passed",
"denied", or "error: ..." for one that was let through but failed for another reason.
"""

import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

DENIALS = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthFailure"}


def client(service, key):
    return boto3.client(
        service,
        endpoint_url=sys.argv[1],
        region_name="us-east-1",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        config=Config(retries={"total_max_attempts": 1}),
    )


def user(iam, name):
    iam.create_user(UserName=name)
    return iam.create_access_key(UserName=name)["AccessKey"]


# The free calls, as many as SETUP_CALLS in moto.rs says: two for each user, and the policy that goes on working afterwards.
nobody = {"AccessKeyId": "nobody", "SecretAccessKey": "nobody"}
free = client("iam", nobody)
admin = user(free, "admin")
tested = user(free, "tested")
everything = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}], "Version": "2012-10-17"}
free.put_user_policy(UserName="admin", PolicyName="all", PolicyDocument=json.dumps(everything))

iam = client("iam", admin)
own = client("ec2", admin)
ec2 = client("ec2", tested)
subnet = own.describe_subnets()["Subnets"][0]["SubnetId"]
group = own.describe_security_groups()["SecurityGroups"][0]["GroupId"]
image = own.describe_images()["Images"][0]["ImageId"]
machine = own.run_instances(ImageId=image, MinCount=1, MaxCount=1, InstanceType="t3.small", SubnetId=subnet)
machine = machine["Instances"][0]["InstanceId"]


def interface():
    return own.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]


def attached():
    eni = interface()
    answer = own.attach_network_interface(NetworkInterfaceId=eni, InstanceId=machine, DeviceIndex=1)
    return eni, answer["AttachmentId"]


def detach():
    eni, attachment = attached()
    try:
        ec2.detach_network_interface(AttachmentId=attachment)
    except ClientError:
        own.detach_network_interface(AttachmentId=attachment)
        raise


def attach():
    attachment = ec2.attach_network_interface(NetworkInterfaceId=interface(), InstanceId=machine, DeviceIndex=1)
    own.detach_network_interface(AttachmentId=attachment["AttachmentId"])


def unassign():
    eni = interface()
    own.assign_private_ip_addresses(NetworkInterfaceId=eni, SecondaryPrivateIpAddressCount=1)
    addresses = own.describe_network_interfaces(NetworkInterfaceIds=[eni])["NetworkInterfaces"][0]["PrivateIpAddresses"]
    spare = [address["PrivateIpAddress"] for address in addresses if not address.get("Primary")]
    ec2.unassign_private_ip_addresses(NetworkInterfaceId=eni, PrivateIpAddresses=spare)


CALLS = {
    "DescribeInstanceTypes": lambda: ec2.describe_instance_types(InstanceTypes=["m5.large"]),
    "DescribeInstances": lambda: ec2.describe_instances(),
    "DescribeNetworkInterfaces": lambda: ec2.describe_network_interfaces(),
    "DescribeSubnets": lambda: ec2.describe_subnets(),
    "DescribeVpcs": lambda: ec2.describe_vpcs(),
    "DescribeSecurityGroups": lambda: ec2.describe_security_groups(),
    "DescribeRouteTables": lambda: ec2.describe_route_tables(),
    "CreateNetworkInterface": lambda: ec2.create_network_interface(SubnetId=subnet, Groups=[group]),
    "CreateTags": lambda: ec2.create_tags(Resources=[interface()], Tags=[{"Key": "thalweg.io/cluster", "Value": "blue"}]),
    "AttachNetworkInterface": attach,
    "DetachNetworkInterface": detach,
    "ModifyNetworkInterfaceAttribute": lambda: ec2.modify_network_interface_attribute(
        NetworkInterfaceId=interface(), SourceDestCheck={"Value": False}
    ),
    "AssignPrivateIpAddresses": lambda: ec2.assign_private_ip_addresses(
        NetworkInterfaceId=interface(), SecondaryPrivateIpAddressCount=1
    ),
    "UnassignPrivateIpAddresses": unassign,
    "AssignIpv6Addresses": lambda: ec2.assign_ipv6_addresses(
        NetworkInterfaceId=interface(), Ipv6Addresses=["2001:db8::1"]
    ),
    "UnassignIpv6Addresses": lambda: ec2.unassign_ipv6_addresses(
        NetworkInterfaceId=interface(), Ipv6Addresses=["2001:db8::1"]
    ),
    "DeleteNetworkInterface": lambda: ec2.delete_network_interface(NetworkInterfaceId=interface()),
}


def outcome(action):
    try:
        CALLS[action.removeprefix("ec2:")]()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        return "denied" if code in DENIALS else f"error: {error}"
    return "passed"


print("ready", flush=True)
for line in sys.stdin:
    case = json.loads(line)
    iam.put_user_policy(UserName="tested", PolicyName="under-test", PolicyDocument=json.dumps(case["policy"]))
    print(json.dumps([outcome(action) for action in case["calls"]]), flush=True)

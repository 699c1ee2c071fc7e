"""Tags of what the registry holds, as Terraform and CloudFormation ask for them at every look."""

import json

import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.serialization import Encoding

import pki
from api import iot

FIRST = [{"Key": "team", "Value": "light"}]


def made(client, fresh_name):
    """One of each kind with tags: its ARN, and what deletes it."""
    group, dynamic, kind, template = (fresh_name(name) for name in ("group", "dynamic", "type", "template"))
    yield client.create_thing_group(thingGroupName=group, tags=FIRST)["thingGroupArn"], lambda: client.delete_thing_group(thingGroupName=group)
    yield (client.create_dynamic_thing_group(thingGroupName=dynamic, queryString="thingName:x*", tags=FIRST)["thingGroupArn"],
           lambda: client.delete_dynamic_thing_group(thingGroupName=dynamic))
    yield client.create_thing_type(thingTypeName=kind, tags=FIRST)["thingTypeArn"], None
    body = json.dumps({"Resources": {"certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}},
                                     "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "Name"}}}},
                       "Parameters": {"Name": {"Type": "String"}}})
    yield (client.create_provisioning_template(templateName=template, templateBody=body, provisioningRoleArn="arn:aws:iam::0:role/r", tags=FIRST)["templateArn"],
           lambda: client.delete_provisioning_template(templateName=template))
    pem = pki.Signer.foreign().certificate.public_bytes(Encoding.PEM).decode()
    ca = client.register_ca_certificate(caCertificate=pem, certificateMode="SNI_ONLY", tags=FIRST)
    yield ca["certificateArn"], lambda: client.delete_ca_certificate(certificateId=ca["certificateId"])


def test_each_kind_comes_with_tags_that_change_and_go_with_it(server, fresh_name):
    client = iot(server)

    def tags(arn):
        return {tag["Key"]: tag["Value"] for tag in client.list_tags_for_resource(resourceArn=arn)["tags"]}

    for arn, delete in made(client, fresh_name):
        assert tags(arn) == {"team": "light"}, arn
        client.tag_resource(resourceArn=arn, tags=[{"Key": "team", "Value": "dark"}, {"Key": "site", "Value": "Bonn"}])
        client.untag_resource(resourceArn=arn, tagKeys=["site", "nothing"])
        assert tags(arn) == {"team": "dark"}, arn
        with pytest.raises(ClientError) as refused:
            client.tag_resource(resourceArn=arn, tags=[{"Key": f"k{number}", "Value": ""} for number in range(50)])
        assert "at most 50" in str(refused.value) and tags(arn) == {"team": "dark"}
        if delete:
            delete()
            with pytest.raises(ClientError) as gone:
                tags(arn)
            assert gone.value.response["Error"]["Code"] == "ResourceNotFoundException", arn


def test_another_of_that_name_has_its_own(server, fresh_name):
    client, name = iot(server), fresh_name("group")
    arn = client.create_thing_group(thingGroupName=name, tags=FIRST)["thingGroupArn"]
    # Saying it again changes nothing, as the group is there.
    client.create_thing_group(thingGroupName=name, tags=[{"Key": "other", "Value": ""}])
    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == FIRST
    client.delete_thing_group(thingGroupName=name)
    client.create_thing_group(thingGroupName=name)
    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == []

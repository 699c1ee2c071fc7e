"""Questions about the whole fleet, as AWS's index answers them: boto3 unmodified."""

import time

import pytest
from botocore.exceptions import ClientError

from api import iot


@pytest.fixture(scope="module")
def fleet(shared):
    client = iot(shared)
    client.create_thing_type(thingTypeName="indexed-lamp")
    for number, (city, power) in enumerate([("bonn", "5"), ("bonn", "7"), ("kiel", "9"), ("ulm", "4.5")]):
        client.create_thing(thingName=f"indexed-{number}", thingTypeName="indexed-lamp",
                            attributePayload={"attributes": {"city": city, "power": power}})
    return client


def refused(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


QUERY = "thingTypeName:indexed-lamp"


def test_statistics_cardinality_percentiles_and_buckets(fleet):
    found = fleet.get_statistics(queryString=QUERY, aggregationField="attributes.power")["statistics"]
    assert (found["count"], found["sum"], found["minimum"], found["maximum"]) == (4, 25.5, 4.5, 9.0)
    assert abs(found["average"] - 6.375) < 1e-9 and abs(found["variance"] - 3.171875) < 1e-9
    assert fleet.get_statistics(queryString=QUERY, aggregationField="attributes.city")["statistics"] == {"count": 4}
    assert fleet.get_statistics(queryString=QUERY)["statistics"]["sum"] == 4, "of the version, where no field is named"
    assert fleet.get_cardinality(queryString=QUERY, aggregationField="attributes.city")["cardinality"] == 3
    assert fleet.get_cardinality(queryString=QUERY + " AND attributes.city:b*", aggregationField="thingName")["cardinality"] == 2
    percentiles = fleet.get_percentiles(queryString=QUERY, aggregationField="attributes.power", percents=[0, 50, 100])["percentiles"]
    assert [(p["percent"], p["value"]) for p in percentiles] == [(0, 4.5), (50, 6.0), (100, 9.0)]
    assert len(fleet.get_percentiles(queryString=QUERY, aggregationField="attributes.power")["percentiles"]) == 7
    terms = {"termsAggregation": {"maxBuckets": 2}}
    buckets = fleet.get_buckets_aggregation(queryString=QUERY, aggregationField="attributes.city", bucketsAggregationType=terms)
    assert (buckets["totalCount"], buckets["buckets"]) == (4, [{"keyValue": "bonn", "count": 2}, {"keyValue": "kiel", "count": 1}])
    code, said = refused(fleet.get_percentiles, queryString=QUERY, aggregationField="attributes.city")
    assert code == "InvalidAggregationException" and "numbers" in said
    assert refused(fleet.get_statistics, queryString=QUERY, aggregationField="shadow.reported.x")[0] == "InvalidAggregationException"
    assert refused(fleet.get_cardinality, queryString="colour:red")[0] == "InvalidQueryException"
    assert refused(fleet.get_cardinality, queryString=QUERY, indexName="AWS_ThingGroups")[0] == "ResourceNotFoundException"


def test_the_configuration_says_what_is_indexed_and_takes_nothing_else(fleet):
    found = fleet.get_indexing_configuration()
    things = found["thingIndexingConfiguration"]
    assert (things["thingIndexingMode"], things["thingConnectivityIndexingMode"]) == ("REGISTRY", "STATUS")
    assert found["thingGroupIndexingConfiguration"]["thingGroupIndexingMode"] == "OFF"
    assert {"name": "registry.version", "type": "Number"} in things["managedFields"]
    fields = [{"name": "attributes.power", "type": "Number"}]
    fleet.update_indexing_configuration(
        thingIndexingConfiguration={"thingIndexingMode": "REGISTRY", "thingConnectivityIndexingMode": "STATUS", "customFields": fields},
        thingGroupIndexingConfiguration={"thingGroupIndexingMode": "OFF"})
    assert fleet.get_indexing_configuration()["thingIndexingConfiguration"]["customFields"] == fields
    for things, word in [({"thingIndexingMode": "OFF"}, "thingIndexingMode"),
                         ({"thingIndexingMode": "REGISTRY_AND_SHADOW"}, "shadows"),
                         ({"thingIndexingMode": "REGISTRY", "namedShadowIndexingMode": "ON"}, "namedShadowIndexingMode"),
                         ({"thingIndexingMode": "REGISTRY", "customFields": [{"name": "shadow.x", "type": "String"}]}, "shadow.x")]:
        code, said = refused(fleet.update_indexing_configuration, thingIndexingConfiguration=things)
        assert code == "InvalidRequestException" and word in said, said
    assert fleet.get_indexing_configuration()["thingIndexingConfiguration"]["customFields"] == fields, "what was refused changed nothing"


def test_who_is_connected_and_since_when(shared, fleet, device, connect):
    lamp = device()
    assert fleet.get_thing_connectivity_data(thingName=lamp.name)["connected"] is False
    session = connect(shared, lamp)
    found = fleet.get_thing_connectivity_data(thingName=lamp.name)
    assert found["connected"] and abs(found["timestamp"].timestamp() - time.time()) < 600
    assert session.alive()
    assert refused(fleet.get_thing_connectivity_data, thingName="no-such-thing")[0] == "ResourceNotFoundException"


def test_lists_in_order_of_creation(make_server):
    client = iot(make_server())
    arns = [client.create_keys_and_certificate(setAsActive=True)["certificateArn"] for _ in range(5)]
    ids = [arn.rsplit("/", 1)[1] for arn in arns]

    def listed(ascending, size):
        pages = client.get_paginator("list_certificates").paginate(ascendingOrder=ascending, PaginationConfig={"PageSize": size})
        return [c["certificateId"] for page in pages for c in page["certificates"]]

    assert listed(True, 2) == ids and listed(False, 2) == ids[::-1] and listed(True, 250) == ids
    assert sorted(ids) == [c["certificateId"] for c in client.list_certificates()["certificates"]]
    document = '{"Version":"2012-10-17","Statement":[]}'.replace("[]", '[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]')
    names = ["zeta", "alpha", "mid"]
    for name in names:
        client.create_policy(policyName=name, policyDocument=document)
        client.attach_policy(policyName=name, target=arns[0])
    of = lambda **how: [p["policyName"] for p in client.list_principal_policies(principal=arns[0], **how)["policies"]]
    assert of(ascendingOrder=True) == names and of(ascendingOrder=False) == names[::-1] and of() == sorted(names)
    for arn in arns[1:3]:
        client.attach_policy(policyName="zeta", target=arn)
    assert client.list_policy_principals(policyName="zeta", ascendingOrder=False)["principals"] == arns[2::-1]
    for listing in (client.list_ca_certificates, client.list_streams):
        assert listing(ascendingOrder=True)["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_a_static_group_need_not_push_out_a_dynamic_one(make_server):
    client = iot(make_server())
    client.create_thing(thingName="lamp")
    client.create_dynamic_thing_group(thingGroupName="dynamic", queryString="thingName:lamp")
    for number in range(10):
        client.create_thing_group(thingGroupName=f"g{number}")
        client.add_thing_to_thing_group(thingGroupName=f"g{number}", thingName="lamp", overrideDynamicGroups=True)
    groups = [g["groupName"] for g in client.list_thing_groups_for_thing(thingName="lamp")["thingGroups"]]
    assert sorted(groups) == ["dynamic", *(f"g{n}" for n in range(10))]

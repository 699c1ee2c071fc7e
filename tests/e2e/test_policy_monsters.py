"""Documents beyond all measure are refused with place and reason, and nothing is changed by them."""

import json
import re

import botocore.exceptions
import pytest

from api import iot
from server import allow, document


def monsters():
    one = allow("Publish", "topic/a")
    text = json.dumps({"Version": "2012-10-17", "Statement": [one]})
    deep = "[" * 10_000 + "]" * 10_000
    return {
        "900,000 bytes": (text.replace("topic/a", "topic/" + "a" * 900_000), "bytes"),
        "a megabyte": (text.replace("topic/a", "topic/" + "a" * (1 << 20)), "bytes"),
        "100,000 statements": (text.replace("[{", "[" + 99_999 * (json.dumps(one) + ",") + "{"), "bytes"),
        "depth 10,000": (text.replace("[{", deep[:10_000] + "{").replace("}]", "}" + deep[10_000:]), "statement"),
        "depth 10,000 within": (text.replace('"iot:Publish"', deep), "Action"),
        "duplicate key": (text.replace('"Effect"', '"Effect": "Deny", "Effect"'), "twice"),
        "wrong type": (text.replace('"2012-10-17"', "20121017"), "Version"),
        "mark of byte order": ("\ufeff" + text, "byte order mark"),
        "unknown element": (text.replace('"Effect"', '"Effekt"'), "Effekt"),
        "not UTF-8": (text.encode().replace(b"topic/a", b"topic/\xff"), "UTF-8"),
    }


def refused_over_the_api(server, policy, document):
    with pytest.raises(botocore.exceptions.ClientError) as refusal:
        iot(server).create_policy_version(policyName=policy, policyDocument=document, setAsDefault=True)
    error = refusal.value.response["Error"]
    return error["Code"], error["Message"]


@pytest.mark.parametrize("kind", monsters())
def test_a_monstrous_document_is_refused_at_its_place_and_changes_nothing(shared, fresh_name, connect, tmp_path, kind):
    policy = fresh_name("policy")
    shared.policy(policy, document(allow("Connect", "*"), allow("Publish", "topic/p/*")))
    client = connect(shared, shared.device(fresh_name(), "--policy", policy))
    before = shared.cli("policy", "show", policy)
    text, word = monsters()[kind]
    path = tmp_path / "policy.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = shared.refused("policy", "update", policy, str(path))
    assert word in said and len(said) < 2000, said
    # The file is named, and the place in it.
    assert str(path) in said and (re.search(r"line \d+, column \d+", said) or "mark" in kind), said
    if isinstance(text, str):
        # Over the API itself, past the program's own look at the file.
        answer, message = refused_over_the_api(shared, policy, text)
        assert answer in ("MalformedPolicyException", "RequestEntityTooLargeException"), (answer, message)
        assert re.search(r"line \d+, column \d+|a policy document at most 65536", message), message
    assert shared.cli("policy", "show", policy) == before
    assert client.publish("p/x") == 0

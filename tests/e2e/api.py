"""The HTTPS API: unmodified boto3 for AWS's operations, and requests signed by botocore for the paths beside them."""

import configparser
import http.client
import json
import ssl

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

REGION = "local"


def credentials(path):
    """The default profile of a shared-credentials file."""
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.read(path)
    profile = parsed["default"]
    return Credentials(profile["aws_access_key_id"], profile["aws_secret_access_key"])


def admin(server):
    return credentials(server.data / "operators/admin.credentials")


def endpoint(server):
    return "https://localhost:%d" % server.port("https")


def iot(server, who=None, region=REGION, **config):
    """boto3's client of AWS IoT, pointed at the server."""
    who = who or admin(server)
    return boto3.client(
        "iot", region_name=region, endpoint_url=endpoint(server), verify=str(server.root),
        aws_access_key_id=who.access_key, aws_secret_access_key=who.secret_key,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=15, read_timeout=30, **config))


def signed(server, method, path, body=b"", who=None, service="iot", region=REGION):
    """A request's headers, signed."""
    request = AWSRequest(method=method, url=endpoint(server) + path, data=body)
    auth = SigV4Auth(who or admin(server), service, region)
    auth.add_auth(request)
    headers = dict(request.headers.items())
    headers["Host"] = "localhost:%d" % server.port("https")
    return headers


def connection(server, identity=None, listener="https"):
    """A connection to the API, with a client certificate or without."""
    context = ssl.create_default_context(cafile=str(server.root))
    if identity:
        context.load_cert_chain(str(identity.certificate), str(identity.key))
    return http.client.HTTPSConnection("localhost", server.port(listener), context=context, timeout=30)


def send(server, method, path, headers=None, body=b"", identity=None):
    """One request; returns status, error type and JSON."""
    opened = connection(server, identity)
    try:
        opened.request(method, path, body=body, headers=headers or {})
        answer = opened.getresponse()
        text = answer.read()
        kind = (answer.headers.get("x-amzn-errortype") or "").split(":")[0]
        try:
            parsed = json.loads(text) if text else None
        except ValueError:
            parsed = text
        return answer.status, kind, parsed
    finally:
        opened.close()


def call(server, method, path, body=None, who=None):
    """One signed request; returns status, error type and JSON."""
    data = b"" if body is None else json.dumps(body).encode()
    return send(server, method, path, signed(server, method, path, data, who), data)

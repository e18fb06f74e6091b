# SPDX-License-Identifier: Apache-2.0
"""An emulated AWS (moto) on loopback, driven line by line.

Prints its port, then reads one JSON object a line and answers each with one:

  {"call": [SERVICE, OPERATION, ARGUMENTS], "region": REGION}   makes a call by AWS's own library, as nobody in particular
  {"answer": {"path": PATH, "status": N, "type": TYPE, "body": BODY, "times": N}}
                                  answers requests to this path itself, so often (0: always); what moto lacks, and what goes wrong
  {"forget": PATH}                                              no longer
  {"overlay": {"path": PATH, "body": OBJECT}}                   lays this over moto's answers to this path
  {"enforce": true}                                             decides by IAM from now on; false: lets all through

An answer is {"ok": ...} or {"error": CODE}.
"""

import datetime
import io
import json
import sys
import threading
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

moto_app = DomainDispatcherApplication(create_backend_app)
answers = []
overlays = {}


def body_of(environment):
    length = int(environment.get("CONTENT_LENGTH") or 0)
    body = environment["wsgi.input"].read(length)
    environment["wsgi.input"] = io.BytesIO(body)
    return body.decode()


def merged(base, over):
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}
    return over


def app(environment, start):
    path = environment["PATH_INFO"]
    # What goes to one address is told apart by its action.
    body = body_of(environment)
    action = next((part[7:] for part in body.split("&") if part.startswith("Action=")), None)
    place = f"{path}?{action}" if action else path
    for one in list(answers):
        if one["path"] != place:
            continue
        if one["times"] > 0:
            one["times"] -= 1
            if one["times"] == 0:
                answers.remove(one)
        text = one["body"] if isinstance(one["body"], str) else json.dumps(one["body"])
        headers = [("content-type", "text/xml" if text.startswith("<") else "application/json")]
        if one.get("type"):
            headers.append(("x-amzn-ErrorType", one["type"]))
        start(f"{one['status']} said", headers)
        return [text.encode()]
    if path not in overlays:
        return moto_app(environment, start)
    kept = {}

    def keep(status, headers, *rest):
        kept["status"], kept["headers"] = status, headers

    data = b"".join(moto_app(environment, keep))
    if kept["status"].startswith("200"):
        data = json.dumps(merged(json.loads(data), overlays[path])).encode()
    headers = [(name, value) for name, value in kept["headers"] if name.lower() != "content-length"]
    start(kept["status"], headers)
    return [data]


class Quiet(WSGIRequestHandler):
    def log_request(self, *_):
        pass


server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
endpoint = f"http://127.0.0.1:{server.server_port}"
clients = {}


def client(service, region):
    if (service, region) not in clients:
        clients[service, region] = boto3.client(
            service,
            endpoint_url=endpoint,
            region_name=region,
            aws_access_key_id="nobody",
            aws_secret_access_key="nobody",
            config=Config(retries={"total_max_attempts": 1}),
        )
    return clients[service, region]


def plain(value):
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    return str(value)


def carry_out(order):
    if "call" in order:
        service, operation, arguments = order["call"]
        try:
            answer = getattr(client(service, order["region"]), operation)(**arguments)
        except ClientError as error:
            return {"error": error.response["Error"]["Code"]}
        answer.pop("ResponseMetadata", None)
        return {"ok": answer}
    if "answer" in order:
        answers.append(order["answer"])
    if "forget" in order:
        answers[:] = [one for one in answers if one["path"] != order["forget"]]
    if "overlay" in order:
        overlays[order["overlay"]["path"]] = order["overlay"]["body"]
    if "enforce" in order:
        free = b"0" if order["enforce"] else b"inf"
        headers = {"content-type": "text/plain"}
        request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", free, headers, method="POST")
        urllib.request.urlopen(request).read()
    return {"ok": None}


print(server.server_port, flush=True)
for line in sys.stdin:
    print(json.dumps(carry_out(json.loads(line)), default=plain), flush=True)

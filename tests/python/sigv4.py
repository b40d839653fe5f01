"""Signs a GET request with botocore, AWS's own library, at the time that is given.

In: {"url", "access_key_id", "secret_access_key", "session_token", "region", "service", "date"}; out: {"authorization"}.
"""

import datetime
import json
import sys

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

given = json.load(sys.stdin)
form = "%Y%m%dT%H%M%SZ"
at = datetime.datetime.strptime(given["date"], form)


class Signer(botocore.auth.SigV4Auth):
    """At a time that was chosen."""

    def add_auth(self, request):
        request.context["timestamp"] = given["date"]
        self._modify_request_before_signing(request)
        canonical = self.canonical_request(request)
        text = self.string_to_sign(request, canonical)
        self._inject_signature_to_request(request, self.signature(text, request))

    def _modify_request_before_signing(self, request):
        request.headers["X-Amz-Date"] = given["date"]
        if self.credentials.token:
            request.headers["X-Amz-Security-Token"] = self.credentials.token


credentials = Credentials(given["access_key_id"], given["secret_access_key"], given["session_token"])
request = AWSRequest(method="GET", url=given["url"])
Signer(credentials, given["service"], given["region"]).add_auth(request)
assert at.strftime(form) == given["date"]
print(json.dumps({"authorization": request.headers["Authorization"]}))

"""An agent in Python that knows nothing of the broker but its address, its root certificate and the pin.

The messages come from server reflection; no code is generated. Reads what it is to do as JSON from standard
input, where the enrollment token is out of other users' sight, and prints what it saw as JSON.
"""

import hashlib
import json
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

DEADLINE = 30


class Api:
    """The services of a server, as its reflection tells them."""

    def __init__(self, channel):
        self._database = ProtoReflectionDescriptorDatabase(channel)
        self._pool = DescriptorPool(self._database)

    def services(self):
        return sorted(self._database.get_services())

    def call(self, channel, service, method, request):
        """Calls with a dict of fields; gives the answer's message."""
        described = self._pool.FindServiceByName(service).methods_by_name[method]
        message = message_factory.GetMessageClass(described.input_type)
        answer = message_factory.GetMessageClass(described.output_type)
        stub = channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=message.SerializeToString,
            response_deserializer=answer.FromString,
        )
        return stub(message(**request), timeout=DEADLINE)

    def follow(self, channel, service, method, request):
        """As `call`, for a stream of answers; it has no deadline of its own."""
        described = self._pool.FindServiceByName(service).methods_by_name[method]
        message = message_factory.GetMessageClass(described.input_type)
        answer = message_factory.GetMessageClass(described.output_type)
        stub = channel.unary_stream(
            f"/{service}/{method}",
            request_serializer=message.SerializeToString,
            response_deserializer=answer.FromString,
        )
        return stub(message(**request))

    def broker(self, channel, method, **request):
        return self.call(channel, "credbroker.v1.BrokerService", method, request)


def handshake(host, port, root_pem):
    """What TLS agrees on with the name `host`."""
    context = ssl.create_default_context(cadata=root_pem)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as tcp:
        with context.wrap_socket(tcp, server_hostname=host) as tls:
            return [tls.version(), tls.selected_alpn_protocol()]


def pin_of(certificate):
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "sha256:" + hashlib.sha256(spki).hexdigest()


def certificate_request():
    """A P-256 key as PEM, and a request by it as DER with an empty subject (RFC 2986)."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem, request.public_bytes(serialization.Encoding.DER)


def as_pem(ders):
    return b"".join(
        x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM) for der in ders
    )


def all_at_once(calls):
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(call) for call in calls]]


def told(lease):
    """A lease as the test compares it."""
    return {
        "lease": lease.id,
        "generation": lease.generation,
        "token": lease.material.oauth_access_token.token.value,
        "type": lease.material.oauth_access_token.token_type,
    }


def refusal(call):
    """How a call that has to fail failed."""
    try:
        call()
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        info = error_details_pb2.ErrorInfo()
        if status is None or not any(detail.Unpack(info) for detail in status.details):
            raise AssertionError(f"no google.rpc.ErrorInfo in {error}") from error
        return {"code": error.code().name, "domain": info.domain, "reason": info.reason}
    raise AssertionError("a call that had to be refused was answered")


def main(job):
    root_pem = open(job.ca_file, encoding="ascii").read()
    port = int(job.address.rpartition(":")[2])
    root = x509.load_pem_x509_certificate(root_pem.encode())
    if pin_of(root) != job.pin:
        raise AssertionError("the root is not the pinned one")
    seen = {"tls": {host: handshake(host, port, root_pem) for host in ("localhost", "127.0.0.1")}}

    unknown = grpc.secure_channel(job.address, grpc.ssl_channel_credentials(root_pem.encode()))
    api = Api(unknown)
    seen["services"] = api.services()
    seen["health"] = api.call(unknown, "grpc.health.v1.Health", "Check", {}).status
    enrollment = "credbroker.v1.EnrollmentService"
    bundle = api.call(unknown, enrollment, "GetTrustBundle", {})
    seen["bundle"] = {
        "pin": bundle.ca_pin,
        "roots": [pin_of(x509.load_der_x509_certificate(der)) for der in bundle.trust_bundle_der],
    }

    def enroll(token):
        """The answer, and what the agent shows of itself from then on."""
        key_pem, csr = certificate_request()
        request = {"token": {"value": token}, "csr_der": csr, "attributes": {"client": "python"}}
        answer = api.call(unknown, enrollment, "Enroll", request)
        transport = grpc.ssl_channel_credentials(
            root_certificates=as_pem(answer.trust_bundle_der),
            private_key=key_pem,
            certificate_chain=as_pem(answer.certificate_chain_der),
        )
        return answer, transport

    def channel(key, transport):
        """A connection of its own; `key` goes as `authorization: Bearer` with every call."""
        bearer = grpc.access_token_call_credentials(key)
        return grpc.secure_channel(job.address, grpc.composite_channel_credentials(transport, bearer))

    enrolled, mtls = enroll(job.enrollment_token)
    key = enrolled.runtime_key.value
    seen["agent"], seen["tasks"] = enrolled.agent, list(enrolled.tasks)
    leaf = x509.load_der_x509_certificate(enrolled.certificate_chain_der[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    seen["spiffe"] = names.get_values_for_type(x509.UniformResourceIdentifier)

    agent = channel(key, mtls)
    # First the watch, then the credential: whatever happens to it from then on is heard of.
    watch = api.follow(agent, "credbroker.v1.WatchService", "Watch", {})
    seen["watch"] = {"first": next(watch).event.WhichOneof("event")}
    resolved = api.broker(agent, "ResolveCredential", task=job.task).lease
    seen["resolved"] = told(resolved)
    report = {
        "lease": resolved.id,
        "rejected_generation": resolved.generation,
        "provider_message": "401 token revoked",
    }
    renewed = all_at_once([lambda: api.broker(agent, "RefreshToken", **report)] * job.callers)
    seen["renewed"] = [told(answer.lease) for answer in renewed]
    late = api.broker(agent, "RefreshToken", **report)
    seen["late"] = {"exchanged": late.exchanged, **told(late.lease)}

    # What was rotated is heard of, and asking again gives it.
    events = (answer.event for answer in watch if answer.event.WhichOneof("event") != "heartbeat")
    rotated = next(events).credential_rotated
    seen["watch"]["rotated"] = [rotated.credential == resolved.credential, rotated.generation]
    seen["watch"]["resolved"] = told(api.broker(agent, "ResolveCredential", task=job.task).lease)
    watch.cancel()

    # Agents of their own, whose grant has no access token that works.
    agents = [enroll(token) for token in job.more_enrollment_tokens]
    channels = [channel(answer.runtime_key.value, transport) for answer, transport in agents]
    for each in channels:
        grpc.channel_ready_future(each).result(DEADLINE)
    answers = all_at_once([partial(api.broker, each, "ResolveCredential") for each in channels])
    seen["expired"] = [told(answer.lease) for answer in answers]

    def refused(presented, transport=mtls):
        return refusal(partial(api.broker, channel(presented, transport), "ResolveCredential", task=job.task))

    mistyped = key[:-1] + ("0" if key[-1] != "0" else "1")
    seen["refused"] = {
        "another agent's key": refused(job.stranger_key),
        "a mistyped key": refused(mistyped),
        "another family": refused(job.enrollment_token),
        "no certificate": refused(key, grpc.ssl_channel_credentials(root_pem.encode())),
        "no key": refusal(partial(api.broker, grpc.secure_channel(job.address, mtls), "ResolveCredential")),
        "a task not its own": refusal(partial(api.broker, agent, "ResolveCredential", task=job.foreign_task)),
    }

    # The key in use ends at the first use of its replacement.
    replacement = api.call(agent, enrollment, "RotateRuntimeKey", {}).runtime_key.value
    api.broker(channel(replacement, mtls), "ResolveCredential", task=job.task)
    seen["refused"]["a replaced key"] = refused(key)
    return seen


if __name__ == "__main__":
    json.dump(main(SimpleNamespace(**json.load(sys.stdin))), sys.stdout)

// An agent in Node that knows nothing of the broker but its address, its root certificate and its `.proto` files.
//
// Reads what it is to do as a line of JSON from standard input, where the enrollment token is out of other users'
// sight, and prints what it saw as lines of JSON, so that what happens to it can happen in between.

import { createHash, generateKeyPairSync, sign, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import protobuf from "protobufjs";

const DEADLINE = 30_000;

const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

// DER (ITU-T X.690), as much of it as a certificate request takes.
const tagged = (tag, ...parts) => {
  const body = Buffer.concat(parts);
  const length = body.length < 128 ? [body.length] : [0x82, body.length >> 8, body.length & 255];
  return Buffer.concat([Buffer.from([tag, ...length]), body]);
};
const sequence = (...parts) => tagged(0x30, ...parts);
const ECDSA_WITH_SHA256 = sequence(Buffer.from("06082a8648ce3d040302", "hex"));

// A P-256 key as PEM, and a request by it with an empty subject (RFC 2986). Node makes no requests by itself.
function certificateRequest() {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const spki = publicKey.export({ type: "spki", format: "der" });
  const version = tagged(0x02, Buffer.from([0]));
  const info = sequence(version, sequence(), spki, tagged(0xa0));
  const signature = tagged(0x03, Buffer.from([0]), sign("sha256", info, privateKey));
  return {
    key: privateKey.export({ type: "pkcs8", format: "pem" }),
    csr: sequence(info, ECDSA_WITH_SHA256, signature),
  };
}

const pem = (ders) => ders.map((der) => new X509Certificate(der).toString()).join("");

function pinOf(certificate) {
  const spki = certificate.publicKey.export({ type: "spki", format: "der" });
  return `sha256:${createHash("sha256").update(spki).digest("hex")}`;
}

// `google.rpc.Status` with its `ErrorInfo`, from google/rpc/status.proto and error_details.proto.
const { root: rpc } = protobuf.parse(`
  syntax = "proto3";
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
`);

// What a failure says: its code, and the reason of `docs/errors.md`.
function told(error) {
  const [details] = error.metadata.get("grpc-status-details-bin");
  // One that the transport made by itself.
  if (details === undefined) return { code: grpc.status[error.code] };
  const status = rpc.lookupType("Status").decode(details);
  const info = status.details.find((any) => any.typeUrl.endsWith("google.rpc.ErrorInfo"));
  const { reason, domain } = rpc.lookupType("ErrorInfo").decode(info.value);
  return { code: grpc.status[error.code], domain, reason };
}

function services(protoDir) {
  const files = ["broker", "enrollment", "watch"].map((name) => `credbroker/v1/${name}.proto`);
  const options = { includeDirs: [protoDir], keepCase: true, longs: Number, enums: String, oneofs: true };
  return grpc.loadPackageDefinition(protoLoader.loadSync(files, options)).credbroker.v1;
}

const unary = (client, method, request) =>
  new Promise((resolve, reject) => {
    const deadline = Date.now() + DEADLINE;
    client[method](request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });

const refused = (call) =>
  call.then(
    () => {
      throw new Error("a call that had to be refused was answered");
    },
    (error) => told(error),
  );

async function main(job) {
  const root = readFileSync(job.ca_file);
  if (pinOf(new X509Certificate(root)) !== job.pin) throw new Error("the root is not the pinned one");
  const api = services(job.proto_dir);

  const { key, csr } = certificateRequest();
  const unknown = new api.EnrollmentService(job.address, grpc.credentials.createSsl(root));
  const enrolled = await unary(unknown, "Enroll", {
    token: { value: job.enrollment_token },
    csr_der: csr,
    attributes: { client: "node" },
  });
  unknown.close();

  const mtls = grpc.credentials.createSsl(
    Buffer.from(pem(enrolled.trust_bundle_der)),
    Buffer.from(key),
    Buffer.from(pem(enrolled.certificate_chain_der)),
  );
  const bearer = grpc.credentials.createFromMetadataGenerator((_, callback) => {
    const metadata = new grpc.Metadata();
    metadata.set("authorization", `Bearer ${enrolled.runtime_key.value}`);
    callback(null, metadata);
  });
  const credentials = grpc.credentials.combineChannelCredentials(mtls, bearer);
  const broker = new api.BrokerService(job.address, credentials);
  const resolve = async () => {
    const { lease } = await unary(broker, "ResolveCredential", { task: job.task });
    const material = lease.material.oauth_access_token;
    return { lease: lease.id, credential: lease.credential, generation: lease.generation, token: material.token.value };
  };

  // First the watch, then the credential: whatever happens to it from then on is heard of. No deadline: the stream
  // ends when the broker says so.
  const watch = new api.WatchService(job.address, credentials).Watch({});
  const events = watch[Symbol.asyncIterator]();
  const next = async () => {
    for (;;) {
      const { value, done } = await events.next();
      if (done) throw new Error("the stream ended without a reason");
      if (value.event.event !== "heartbeat") return value.event;
    }
  };
  const first = (await events.next()).value.event;
  print({ agent: enrolled.agent, first: first.event, resolved: await resolve() });

  const { credential_rotated: rotated } = await next();
  print({ rotated, resolved: await resolve() });

  const end = await refused(next());
  const again = new api.WatchService(job.address, credentials).Watch({});
  print({
    end,
    call: await refused(unary(broker, "ResolveCredential", { task: job.task })),
    again: await refused(again[Symbol.asyncIterator]().next()),
  });
  process.exit(0);
}

for await (const line of createInterface({ input: process.stdin })) await main(JSON.parse(line));

// A real OAuth server for the tests: oidc-provider with refresh token rotation, in memory.
//
// Prints one JSON line {"port": …} when it is ready and exits when its stdin closes. Besides the provider
// it serves, for the tests only:
//   POST /test/grants?client=ID&ttl=SECONDS&account=NAME   mints a grant: {grant_id, refresh_token}
//   GET  /test/grants/ID                      what became of it: {alive, calls, successes, refused, replays}
//   POST /test/id-tokens?ttl=SECONDS          how long ID tokens live from now on
//
// People sign in by the shipped development pages, with any name and password. The signing key is made at each
// start, so that a restart on the same port is a change of keys.

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import http from 'node:http';
import { Provider } from 'oidc-provider';

// Standard output is for the one line; nobody reads it afterwards.
console.info = console.error;

const port = Number(process.argv[2] ?? 0);
const SCOPE = 'openid offline_access';

// What the secret of credbroker-basic and credbroker-post has in it tests how it is encoded.
const SECRET = 'test/secret+with:odd%chars&';

const redirects = {
  redirect_uris: ['http://127.0.0.1/callback'],
  application_type: 'native',
  response_types: ['code'],
  grant_types: ['authorization_code', 'refresh_token'],
};
const clients = [
  { client_id: 'credbroker-public', token_endpoint_auth_method: 'none', ...redirects },
  {
    client_id: 'credbroker-basic',
    client_secret: SECRET,
    token_endpoint_auth_method: 'client_secret_basic',
    ...redirects,
  },
  {
    client_id: 'credbroker-post',
    client_secret: SECRET,
    token_endpoint_auth_method: 'client_secret_post',
    ...redirects,
  },
  {
    client_id: 'credbroker-cli',
    token_endpoint_auth_method: 'none',
    ...redirects,
    grant_types: [...redirects.grant_types, 'urn:ietf:params:oauth:grant-type:device_code'],
  },
];
let idTokenTtl = 3600;

const history = new Map(); // grant id -> counters
const grantOfToken = new Map(); // refresh token -> grant id, also of tokens that are gone

// The shipped in-memory adapter forgets under load; this one forgets only what is destroyed or revoked.
class Memory {
  static stores = new Map();

  constructor(name) {
    if (!Memory.stores.has(name)) Memory.stores.set(name, new Map());
    this.name = name;
    this.store = Memory.stores.get(name);
  }

  async upsert(id, payload, expiresIn) {
    const expires = expiresIn ? Date.now() + expiresIn * 1000 : Infinity;
    this.store.set(id, { payload, expires });
    if (this.name === 'RefreshToken') grantOfToken.set(id, payload.grantId);
  }

  async find(id) {
    const entry = this.store.get(id);
    return entry && entry.expires > Date.now() ? { ...entry.payload } : undefined;
  }

  async consume(id) {
    const entry = this.store.get(id);
    if (entry) entry.payload.consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    this.store.delete(id);
  }

  async revokeByGrantId(grantId) {
    for (const [id, { payload }] of this.store) {
      if (payload.grantId === grantId) this.store.delete(id);
    }
  }

  async findByUid(uid) {
    return this.#findBy('uid', uid);
  }

  async findByUserCode(userCode) {
    return this.#findBy('userCode', userCode);
  }

  async #findBy(field, wanted) {
    for (const [id, { payload }] of this.store) {
      if (payload[field] === wanted) return this.find(id);
    }
    return undefined;
  }
}

const server = http.createServer();
await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
const bound = server.address().port;

const signing = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });

const provider = new Provider(`http://127.0.0.1:${bound}`, {
  adapter: Memory,
  clients,
  rotateRefreshToken: true,
  scopes: ['openid', 'offline_access'],
  features: {
    devInteractions: { enabled: true },
    deviceFlow: { enabled: true },
    revocation: { enabled: true },
  },
  cookies: { keys: ['tests-only'] },
  jwks: { keys: [{ ...signing, use: 'sig', alg: 'RS256', kid: randomUUID() }] },
  ttl: {
    AccessToken: (_ctx, token) => history.get(token.grantId)?.ttl ?? 3600,
    Grant: 86_400,
    IdToken: () => idTokenTtl,
    RefreshToken: 86_400,
  },
  async findAccount(_ctx, sub) {
    return { accountId: sub, claims: async () => ({ sub }) };
  },
});
provider.on('server_error', (_ctx, error) => console.error(error));

const grantOf = (ctx) => history.get(grantOfToken.get(ctx.oidc?.params?.refresh_token));
provider.on('grant.success', (ctx) => {
  const grant = grantOf(ctx);
  if (grant) grant.successes += 1;
});
provider.on('grant.error', (ctx, error) => {
  const grant = grantOf(ctx);
  if (!grant) return;
  if (error.error === 'invalid_grant') grant.refused += 1;
  if (error.error_detail === 'refresh token already used') grant.replays += 1;
});
provider.on('grant.revoked', (_ctx, grantId) => {
  const grant = history.get(grantId);
  if (grant) grant.alive = false;
});

provider.use(async (ctx, next) => {
  await next();
  const grant = ctx.path === '/token' && grantOf(ctx);
  if (grant) grant.calls += 1;
});

async function mint(clientId, ttl, accountId) {
  const client = await provider.Client.find(clientId);
  if (!client) throw new Error(`no client ${clientId}`);
  const grant = new provider.Grant({ accountId, clientId });
  grant.addOIDCScope(SCOPE);
  const grantId = await grant.save();
  history.set(grantId, { alive: true, ttl, calls: 0, successes: 0, refused: 0, replays: 0 });
  const token = new provider.RefreshToken({
    accountId,
    client,
    grantId,
    gty: 'authorization_code',
    scope: SCOPE,
  });
  return { grant_id: grantId, refresh_token: await token.save() };
}

const callback = provider.callback();
server.on('request', async (request, response) => {
  const url = new URL(request.url, 'http://127.0.0.1');
  if (!url.pathname.startsWith('/test/')) return callback(request, response);
  const reply = (status, body) => {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body));
  };
  try {
    if (request.method === 'POST' && url.pathname === '/test/grants') {
      const client = url.searchParams.get('client') ?? 'credbroker-public';
      const account = url.searchParams.get('account') ?? 'member';
      return reply(201, await mint(client, Number(url.searchParams.get('ttl') ?? 3600), account));
    }
    if (request.method === 'POST' && url.pathname === '/test/id-tokens') {
      idTokenTtl = Number(url.searchParams.get('ttl'));
      return reply(200, { ttl: idTokenTtl });
    }
    const grant = history.get(url.pathname.slice('/test/grants/'.length));
    return grant ? reply(200, grant) : reply(404, { error: 'no such grant' });
  } catch (error) {
    return reply(400, { error: String(error) });
  }
});

process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();
console.log(JSON.stringify({ port: bound }));

// npm `oidc-provider` as an authorization server on loopback, with a user who says yes.
//
// Clients register themselves. The first time a client asks it is granted `harbour:read`
// alone, after that whatever it asks for: so that stepping up can be seen. Tokens for a
// resource that ends in /mcp are JWTs, those for a server's own endpoint are opaque.
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import Provider from "oidc-provider";

const { values } = parseArgs({ options: { client: { type: "string" }, secret: { type: "string" } } });
const SCOPES = "harbour:read harbour:write";

const key = (kind, options, kid) =>
  ({ ...generateKeyPairSync(kind, options).privateKey.export({ format: "jwk" }), kid, use: "sig" });

const server = createServer();
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const { port } = server.address();
const issuer = `http://127.0.0.1:${port}`;
const seen = new Map();

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: values.client,
      client_secret: values.secret,
      grant_types: [],
      redirect_uris: [],
      response_types: [],
      token_endpoint_auth_method: "client_secret_basic",
    },
    {
      client_id: "machine",
      client_secret: "machine-secret-of-thirty-two-bytes",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    },
  ],
  cookies: { keys: ["loopback only"] },
  jwks: { keys: [key("rsa", { modulusLength: 2048 }, "rsa"), key("ec", { namedCurve: "P-256" }, "ec")] },
  scopes: ["openid", "offline_access", ...SCOPES.split(" ")],
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (ctx, interaction) => `/yes/${interaction.uid}` },
  clientBasedCORS: () => true,
  features: {
    devInteractions: { enabled: false },
    registration: { enabled: true },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: (ctx, client) => client.clientId === values.client },
    dPoP: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: SCOPES,
        audience: resource,
        accessTokenFormat: resource.includes("/servers/") ? "opaque" : "jwt",
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});

/** The page a user would see: signed in as ada, everything granted but on the first visit. */
async function yes(request, response) {
  const { prompt, params } = await provider.interactionDetails(request, response);
  const accountId = "ada";
  const result = { login: { accountId } };
  if (prompt.name === "consent") {
    const first = !seen.has(params.client_id);
    seen.set(params.client_id, true);
    const grant = new provider.Grant({ accountId, clientId: params.client_id });
    const asked = (params.scope ?? "").split(" ");
    const granted = first ? asked.filter((scope) => scope !== "harbour:write") : asked;
    grant.addOIDCScope(granted.join(" "));
    for (const resource of [params.resource].flat().filter(Boolean)) {
      grant.addResourceScope(resource, granted.join(" "));
      if (first) grant.rejectResourceScope(resource, "harbour:write");
    }
    if (first) grant.rejectOIDCScope("harbour:write");
    result.consent = { grantId: await grant.save() };
  }
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
}

const oidc = provider.callback();
server.on("request", (request, response) => {
  if (!request.url.startsWith("/yes/")) return oidc(request, response);
  yes(request, response).catch((error) => {
    response.statusCode = 500;
    response.end(String(error));
  });
});
provider.on("server_error", (ctx, error) => process.stderr.write(`${error.stack}\n`));
console.log(JSON.stringify({ port }));
// Ends with whoever started it.
process.stdin.on("end", () => process.exit()).resume();

// Tokens bound to a key, and tokens that say nothing, from npm `oidc-provider`; proofs by
// npm `jose`. Prints what each use of them is answered.
import { createHash, randomUUID } from "node:crypto";
import { SignJWT, exportJWK, generateKeyPair } from "jose";

const [resource, alone] = process.argv.slice(2);
const metadata = new URL(resource);
metadata.pathname = `/.well-known/oauth-protected-resource${metadata.pathname}`;
const issuer = (await (await fetch(metadata)).json()).authorization_servers[0];
const token_endpoint = `${issuer}/token`;

const { privateKey, publicKey } = await generateKeyPair("ES256");
const jwk = await exportJWK(publicKey);

function proof(htu, token) {
  const ath = token && createHash("sha256").update(token).digest("base64url");
  return new SignJWT({ htm: "POST", htu, jti: randomUUID(), ...(ath && { ath }) })
    .setProtectedHeader({ alg: "ES256", typ: "dpop+jwt", jwk })
    .setIssuedAt()
    .sign(privateKey);
}

async function granted(resource, headers) {
  const response = await fetch(token_endpoint, {
    method: "POST",
    headers: {
      authorization: `Basic ${btoa("machine:machine-secret-of-thirty-two-bytes")}`,
      ...headers,
    },
    body: new URLSearchParams({ grant_type: "client_credentials", resource, scope: "harbour:read" }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(JSON.stringify(answer));
  return answer;
}

async function list(url, headers) {
  const params = { _meta: { "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} } };
  const response = await fetch(url, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      "mcp-protocol-version": "2026-07-28",
      "mcp-method": "tools/list",
      ...headers,
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list", params }),
  });
  await response.text();
  const error = /error="([^"]+)"/.exec(response.headers.get("www-authenticate") ?? "")?.[1];
  return error ? [response.status, error] : response.status;
}

const bound = await granted(resource, { DPoP: await proof(token_endpoint) });
const authorization = `DPoP ${bound.access_token}`;
const once = await proof(resource, bound.access_token);
const opaque = (await granted(alone)).access_token;
console.log(JSON.stringify({
  type: bound.token_type,
  proven: await list(resource, { authorization, dpop: once }),
  copied: await list(resource, { authorization, dpop: once }),
  "as bearer": await list(resource, { authorization: `Bearer ${bound.access_token}` }),
  elsewhere: await list(resource, { authorization, dpop: await proof(alone, bound.access_token) }),
  opaque: await list(alone, { authorization: `Bearer ${opaque}` }),
  "opaque elsewhere": await list(resource, { authorization: `Bearer ${opaque}` }),
}));

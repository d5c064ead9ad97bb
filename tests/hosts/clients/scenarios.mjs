// What every npm client here is asked to do, and how it reports what it saw.
//
// A client script gives `main` the operations of its own SDK; this file only picks the
// arguments, keeps the clock and prints one JSON line per scenario:
//   {"scenario": …, "ok": {…}, "http": [{"status": …}]}       it worked, and this came back
//   {"scenario": …, "failed": {"message": …}, "http": […]}    the SDK refused, in its own words
// Judging is the business of the test that reads these lines.
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { visit } from "./browser.mjs";

/** What to ask of each known upstream: names are the upstream's own, unprefixed. */
const FIXTURES = JSON.parse(readFileSync(new URL("fixtures.json", import.meta.url), "utf8"));

function options() {
  const { values } = parseArgs({
    options: {
      url: { type: "string" },
      token: { type: "string" },
      fixture: { type: "string", default: "everything" },
      prefix: { type: "string", default: "" },
      tool: { type: "string" },
      args: { type: "string", default: "{}" },
      times: { type: "string", default: "1" },
      era: { type: "string", default: "auto" },
      scenario: { type: "string", default: "tools" },
    },
  });
  return values;
}

/** A fetch that writes down the answers' statuses and the headers a limit or challenge is told in. */
function observedFetch(seen) {
  return async (url, init) => {
    const response = await fetch(url, init);
    const header = (name) => response.headers.get(name) ?? undefined;
    seen.push({
      method: init?.method ?? "GET",
      status: response.status,
      content_type: header("content-type"),
      retry_after: header("retry-after"),
      challenge: header("www-authenticate"),
    });
    return response;
  };
}

function failure(error) {
  return {
    message: String(error?.message ?? error),
    kind: error?.constructor?.name,
    code: error?.code,
    data: error?.data,
  };
}

const text = (content) => content.map((block) => block.text ?? `<${block.type}>`).join("\n");

/** The scenarios every SDK shares; each takes the connected SDK and answers with plain facts. */
const SHARED = {
  connect: ({ sdk }) => sdk.identity(),
  tools: async ({ sdk }) => ({ names: (await sdk.tools()).map((tool) => tool.name) }),
  call: async ({ sdk, tool, fixture, prefix }) => {
    const [name, args] = tool ?? [prefix + fixture.call[0], fixture.call[1]];
    const result = await sdk.call(name, args);
    return { text: text(result.content), is_error: result.isError ?? false };
  },
  resource: async ({ sdk, fixture }) => {
    const listed = await sdk.resources();
    const wanted = listed.find((resource) => resource.uri.includes(fixture.resource));
    const { contents } = await sdk.read(wanted.uri);
    return { listed: listed.length, uri: wanted.uri, answered_uri: contents[0].uri, text: contents[0].text };
  },
  templates: async ({ sdk }) => ({ uris: (await sdk.templates()).map((each) => each.uriTemplate) }),
  prompt: async ({ sdk, fixture, prefix }) => {
    const names = (await sdk.prompts()).map((prompt) => prompt.name);
    const { messages } = await sdk.prompt(prefix + fixture.prompt[0], fixture.prompt[1]);
    return { names, text: text(messages.map((message) => message.content)) };
  },
  complete: async ({ sdk, fixture, prefix }) => {
    const ref = { type: "ref/prompt", name: prefix + fixture.complete[0] };
    const { completion } = await sdk.complete(ref, fixture.complete[1]);
    return { values: completion.values };
  },
  progress: async ({ sdk, fixture, prefix }) => {
    const started = performance.now();
    const arrivals = [];
    const onprogress = ({ progress, total }) =>
      arrivals.push({ after_ms: Math.round(performance.now() - started), progress, total });
    const [name, args] = fixture.progress;
    const result = await sdk.call(prefix + name, args, onprogress);
    return { arrivals, finished_ms: Math.round(performance.now() - started), text: text(result.content) };
  },
  // Several calls side by side on one connection: answers must not cross.
  parallel: async ({ sdk, prefix }) => {
    const asked = Array.from({ length: 8 }, (_, index) => `wave ${index}`);
    const answers = await Promise.all(asked.map((message) => sdk.call(`${prefix}echo`, { message })));
    return { texts: answers.map((answer) => text(answer.content)) };
  },
  burst: async ({ sdk, tool, times }) => {
    const outcomes = [];
    for (let turn = 0; turn < times; turn += 1) {
      const outcome = await sdk.call(...tool).then((result) => ({ text: text(result.content) }), failure);
      outcomes.push(outcome);
    }
    return { outcomes };
  },
};

/**
 * Runs the asked scenarios. `sdk` gives: `connect({url, token, fetch})`, which answers with the
 * connected operations, and `alone`, the scenarios that must not connect first.
 */
export async function main(sdk) {
  const values = options();
  const seen = [];
  const context = {
    ...values,
    fetch: observedFetch(seen),
    fixture: FIXTURES[values.fixture],
    tool: values.tool && [values.tool, JSON.parse(values.args)],
    times: Number(values.times),
  };
  let connected;
  for (const scenario of values.scenario.split(",")) {
    seen.length = 0;
    const started = performance.now();
    const line = { scenario };
    try {
      if (sdk.alone[scenario]) {
        line.ok = await sdk.alone[scenario](context);
      } else {
        connected ??= await sdk.connect(context);
        line.ok = await (SHARED[scenario] ?? connected.own[scenario])({ ...context, sdk: connected });
      }
    } catch (error) {
      line.failed = failure(error);
    }
    line.elapsed_ms = Math.round(performance.now() - started);
    line.http = [...seen];
    console.log(JSON.stringify(line));
  }
  await connected?.close();
  process.exit(0);
}

/** Discovers the authorization server as the SDK's own sign-in would, and says what it found. */
export async function discover(context, auth) {
  const response = await context.fetch(context.url, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json, text/event-stream" },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list" }),
  });
  const challenge = auth.extractWWWAuthenticateParams(response);
  const announced = challenge.resourceMetadataUrl;
  const resource = await auth.discoverOAuthProtectedResourceMetadata(context.url, { resourceMetadataUrl: announced });
  // Without the announced address: the well-known fallback must lead to the same document.
  const fallback = await auth.discoverOAuthProtectedResourceMetadata(context.url);
  const selected = await auth.selectResourceURL(context.url, {}, resource);
  const server = await auth.discoverAuthorizationServerMetadata(resource.authorization_servers[0]);
  return {
    status: response.status,
    announced: announced?.href,
    scope: challenge.scope,
    resource: resource.resource,
    fallback_resource: fallback.resource,
    selected: selected?.href,
    authorization_servers: resource.authorization_servers,
    issuer: server?.issuer,
    jwks_uri: server?.jwks_uri,
  };
}

/** A user who says yes: what an SDK's sign-in asks of the program around it, kept in memory. */
class Consent {
  redirectUrl = "http://127.0.0.1:1/callback";
  clientMetadata = { client_name: "sign-in", redirect_uris: [this.redirectUrl], grant_types: ["authorization_code"], response_types: ["code"], token_endpoint_auth_method: "none" };
  clientInformation = () => this.client;
  saveClientInformation = (client) => (this.client = client);
  tokens = () => this.granted;
  saveTokens = (tokens) => (this.granted = tokens);
  saveCodeVerifier = (verifier) => (this.verifier = verifier);
  codeVerifier = () => this.verifier;
  saveDiscoveryState = (state) => (this.discovered = state);
  discoveryState = () => this.discovered;
  // Where a browser would go: the issuer's page answers with the way back.
  redirectToAuthorization = async (url) => {
    this.asked = url.searchParams;
    this.callback = (await visit(url, this.redirectUrl)).searchParams;
  };
}

/** Starts without a token and lets the SDK find the issuer, register, sign in and come back. */
export async function signIn(context, { transport, connect }) {
  const provider = new Consent();
  const first = transport({ ...context, token: undefined, provider });
  const refused = await connect({ ...context, transport: first }).then(() => "not at all", (error) => error.constructor.name);
  await first.finishAuth(provider.callback.get("code"), provider.callback.get("iss") ?? undefined);
  const sdk = await connect({ ...context, transport: transport({ ...context, token: undefined, provider }) });
  const names = (await sdk.tools()).map((tool) => tool.name);
  await sdk.close();
  return { refused, names, resource: provider.asked.get("resource"), scope: provider.asked.get("scope") };
}

/** Signs in, calls a tool, calls another that needs more, and does what the SDK then asks for. */
export async function stepUp(context, { transport, connect }) {
  const provider = new Consent();
  const wire = () => transport({ ...context, token: undefined, provider });
  const finish = (first) => first.finishAuth(provider.callback.get("code"), provider.callback.get("iss") ?? undefined);
  const first = wire();
  await connect({ ...context, transport: first }).catch(() => {});
  await finish(first);
  const second = wire();
  let sdk = await connect({ ...context, transport: second });
  const said = (result) => result.content[0].text;
  const echo = said(await sdk.call("everything__echo", { message: "ahoy" }));
  const sum = () => sdk.call("everything__get-sum", { a: 2, b: 3 });
  const refused = await sum().then(said, (error) => error.constructor.name);
  const asked = provider.asked.get("scope");
  await finish(second);
  await sdk.close().catch(() => {});
  sdk = await connect({ ...context, transport: wire() });
  const answer = said(await sum());
  await sdk.close();
  return { refused, echo, asked, sum: answer, resource: provider.asked.get("resource") };
}

// npm `@modelcontextprotocol/sdk` 1.x: the legacy client. It opens with `initialize`.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import * as auth from "@modelcontextprotocol/sdk/client/auth.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { discover, main, signIn, stepUp } from "./scenarios.mjs";

function transport({ url, token, provider, fetch }) {
  const headers = { cookie: "harbour=private", ...(token && { authorization: `Bearer ${token}` }) };
  return new StreamableHTTPClientTransport(new URL(url), { authProvider: provider, fetch, requestInit: { headers } });
}

async function connect(context) {
  const wire = context.transport ?? transport(context);
  const client = new Client({ name: "npm-sdk", version: "1" });
  await client.connect(wire);
  return {
    own: {},
    identity: () => ({
      era: "legacy",
      version: wire.protocolVersion,
      server: client.getServerVersion()?.name,
      capabilities: Object.keys(client.getServerCapabilities() ?? {}),
    }),
    tools: async () => (await client.listTools()).tools,
    call: (name, args, onprogress) => client.callTool({ name, arguments: args }, undefined, { onprogress }),
    resources: async () => (await client.listResources()).resources,
    templates: async () => (await client.listResourceTemplates()).resourceTemplates,
    read: (uri) => client.readResource({ uri }),
    prompts: async () => (await client.listPrompts()).prompts,
    prompt: (name, args) => client.getPrompt({ name, arguments: args }),
    complete: (ref, argument) => client.complete({ ref, argument }),
    close: () => client.close(),
  };
}

await main({
  connect,
  alone: {
    discovery: (context) => discover(context, auth),
    sign_in: (context) => signIn(context, { transport, connect }),
    step_up: (context) => stepUp(context, { transport, connect }),
  },
});

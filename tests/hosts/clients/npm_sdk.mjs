// npm `@modelcontextprotocol/sdk` 1.x: the legacy client. It opens with `initialize`.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import * as auth from "@modelcontextprotocol/sdk/client/auth.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { discover, main, signIn, stepUp } from "./scenarios.mjs";
import { answering, asksForTasks, tasks } from "./npm_sdk_tasks.mjs";

function transport({ url, token, provider, fetch }) {
  const headers = { cookie: "harbour=private", ...(token && { authorization: `Bearer ${token}` }) };
  return new StreamableHTTPClientTransport(new URL(url), { authProvider: provider, fetch, requestInit: { headers } });
}

async function connect(context) {
  const wire = context.transport ?? transport(context);
  const asked = [];
  const info = { name: "npm-sdk", version: "1" };
  // Whoever calls tools as tasks can be asked; other calls must not be.
  const client = asksForTasks(context) ? answering(new Client(info, { capabilities: { elicitation: {} } }), asked) : new Client(info);
  await client.connect(wire);
  return {
    client,
    asked,
    own: tasks,
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

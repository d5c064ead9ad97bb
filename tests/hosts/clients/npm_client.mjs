// npm `@modelcontextprotocol/client` 2.x: the modern client, with Tasks from
// `@modelcontextprotocol/ext-tasks`. It must find the modern era by itself, unless told to
// open with `initialize` (`--era legacy`).
import * as mcp from "@modelcontextprotocol/client";
import { createApplicationInputHandler, createTaskSessionFromClient } from "@modelcontextprotocol/ext-tasks/client";
import { discover, main, signIn, stepUp } from "./scenarios.mjs";

const CLIENT_INFO = { name: "npm-client", version: "2" };

function transport({ url, token, provider, fetch }) {
  const authProvider = provider ?? (token && { token: async () => token });
  // A cookie no upstream has any business seeing.
  const requestInit = { headers: { cookie: "harbour=private" } };
  return new mcp.StreamableHTTPClientTransport(new URL(url), { authProvider, fetch, requestInit });
}

/** Sends already framed requests over a transport of its own: what ext-tasks asks of its host. */
async function rawDispatch(context) {
  const wire = transport(context);
  const waiting = new Map();
  let last = 0;
  wire.onmessage = (message) => {
    if (message.id === undefined) return;
    waiting.get(message.id)?.(message.error ? { kind: "error", error: message.error } : { kind: "result", result: message.result });
  };
  await wire.start();
  const dispatch = (request) =>
    new Promise((resolve, reject) => {
      const id = ++last;
      waiting.set(id, resolve);
      wire.send({ ...request, jsonrpc: "2.0", id }).catch(reject);
    });
  return { dispatch, close: () => wire.close() };
}

/** Lets ext-tasks drive the task, answers what it asks, and writes down each state it polled. */
async function task({ sdk, tool, ...context }) {
  const raw = await rawDispatch(context);
  const asked = [];
  const elicitation = ({ params }) => {
    asked.push(params.message);
    return { action: "accept", content: { name: "Ada" } };
  };
  const refuse = () => {
    throw new Error("nobody answers that here");
  };
  const clientCapabilities = { elicitation: { form: {} } };
  const session = createTaskSessionFromClient(sdk.client, {
    endpointId: context.url,
    rawDispatch: raw.dispatch,
    onInputRequest: createApplicationInputHandler({ elicitation, sampling: refuse, roots: refuse }),
    v2RequestFraming: { protocolVersion: "2026-07-28", clientInfo: CLIENT_INFO, clientCapabilities },
  });
  const states = [];
  const execution = await session.callTool(...tool);
  const { outcome } = await execution.settle({
    onEvent: (event) => event.type === "task" && states.push(event.task.status),
  });
  const id = execution.handle?.taskId;
  // Read once more after the end: a finished task stays readable.
  const again = id && (await session.task(id).snapshot()).status;
  await raw.close();
  return { kind: execution.kind, id, states, asked, again, status: outcome.status, text: outcome.result?.content?.[0]?.text };
}

async function connect(context) {
  const client = new mcp.Client(CLIENT_INFO, { versionNegotiation: { mode: context.era } });
  await client.connect(context.transport ?? transport(context));
  return {
    client,
    own: { task },
    identity: () => ({
      era: client.getProtocolEra(),
      version: client.getNegotiatedProtocolVersion?.(),
      server: client.getServerVersion()?.name,
      capabilities: Object.keys(client.getServerCapabilities() ?? {}),
      extensions: Object.keys(client.getServerCapabilities()?.extensions ?? {}),
    }),
    tools: async () => (await client.listTools()).tools,
    call: (name, args, onprogress) => client.callTool({ name, arguments: args }, { onprogress }),
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
    discovery: (context) => discover(context, mcp),
    sign_in: (context) => signIn(context, { transport, connect }),
    step_up: (context) => stepUp(context, { transport, connect }),
  },
});

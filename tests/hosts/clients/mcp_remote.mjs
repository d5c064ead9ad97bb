// npm `mcp-remote`: a bridge that shows a remote server as a local program. Whoever starts
// it speaks to its standard input; here that is `@modelcontextprotocol/sdk` 1.x.
import { fileURLToPath } from "node:url";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { main } from "./scenarios.mjs";

const BRIDGE = fileURLToPath(new URL("../../../node_modules/mcp-remote/dist/proxy.js", import.meta.url));

async function connect({ url, token }) {
  const header = token ? ["--header", `Authorization: Bearer ${token}`] : [];
  const args = [BRIDGE, url, "--transport", "http-only", "--silent", ...header];
  const client = new Client({ name: "mcp-remote", version: "1" });
  await client.connect(new StdioClientTransport({ command: process.execPath, args, stderr: "ignore" }));
  return {
    own: {},
    // What the bridge speaks to the server is its own affair.
    identity: () => ({ server: client.getServerVersion()?.name }),
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

await main({ connect, alone: {} });

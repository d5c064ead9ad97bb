// An upstream on the TypeScript SDK's `createMcpHandler`: both eras from one definition,
// without sessions. It serves what the `reference` fixture asks for, and a tool that asks.
//
//     node typescript.mjs --port N
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { toNodeHandler } from "@modelcontextprotocol/node";
import { completable, createMcpHandler, fromJsonSchema, inputRequired, McpServer } from "@modelcontextprotocol/server";
import { z } from "zod";

const { port } = parseArgs({ options: { port: { type: "string" } } }).values;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function define() {
  const server = new McpServer({ name: "typescript", version: "1" });
  server.registerTool("test_simple_text", { description: "Says something" }, () => ({
    content: [{ type: "text", text: "This is a simple text response for testing." }],
  }));
  server.registerTool("test_tool_with_progress", { description: "Takes three steps" }, async (context) => {
    const progressToken = context.mcpReq._meta?.progressToken;
    for (const progress of [0, 50, 100]) {
      const params = { progressToken, progress, total: 100 };
      if (progressToken !== undefined) await context.mcpReq.notify({ method: "notifications/progress", params });
      await pause(50);
    }
    return { content: [{ type: "text", text: String(progressToken) }] };
  });
  server.registerTool("ask_name", { description: "Asks for a name" }, (context) => {
    const answer = context.mcpReq.inputResponses?.name;
    if (answer) return { content: [{ type: "text", text: `Hello, ${answer.content?.name}!` }] };
    const schema = { type: "object", properties: { name: { type: "string" } }, required: ["name"] };
    const params = { message: "What is your name?", requestedSchema: fromJsonSchema(schema) };
    return inputRequired({ inputRequests: { name: inputRequired.elicit(params) } });
  });
  server.registerResource("static-text", "test://static-text", { mimeType: "text/plain" }, (uri) => ({
    contents: [{ uri: uri.href, text: "This is the content of the static text resource." }],
  }));
  const arg1 = completable(z.string(), (begun) => ["ebb", "flow"].filter((word) => word.startsWith(begun)));
  const argsSchema = z.object({ arg1, arg2: z.string() });
  server.registerPrompt("test_prompt_with_arguments", { description: "Repeats", argsSchema }, (args) => ({
    messages: [{ role: "user", content: { type: "text", text: `arg1='${args.arg1}', arg2='${args.arg2}'` } }],
  }));
  return server;
}

createServer(toNodeHandler(createMcpHandler(define))).listen(Number(port), "127.0.0.1");

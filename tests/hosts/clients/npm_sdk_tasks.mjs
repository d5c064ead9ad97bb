// The experimental tasks of 2025-11-25 in npm `@modelcontextprotocol/sdk` 1.x.
import { CallToolResultSchema, CreateTaskResultSchema, ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const RELATED = "io.modelcontextprotocol/related-task";
const TTL_MS = 600_000;
/** Longest one request waits: a task's result comes when the task ends. */
const PATIENCE_MS = 300_000;

/** Whether any scenario is about tasks. */
export const asksForTasks = ({ scenario }) => scenario.split(",").some((name) => name in tasks);

/** Answers every question, and writes down whose task asked. */
export function answering(client, asked) {
  client.setRequestHandler(ElicitRequestSchema, ({ params }) => {
    asked.push({ message: params.message, task: params._meta?.[RELATED]?.taskId });
    return { action: "accept", content: { name: "Ada" } };
  });
  return client;
}

async function create(client, [name, args]) {
  const request = { method: "tools/call", params: { name, arguments: args } };
  const { task } = await client.request(request, CreateTaskResultSchema, { task: { ttl: TTL_MS } });
  return task;
}

/** Calls the tool as a task and waits where its result comes. */
async function task({ sdk, tool }) {
  const { client, asked } = sdk;
  const api = client.experimental.tasks;
  const created = await create(client, tool);
  const id = created.taskId;
  const states = [created.status, (await api.getTask(id)).status];
  const result = await api.getTaskResult(id, CallToolResultSchema, { timeout: PATIENCE_MS });
  const again = (await api.getTask(id)).status;
  const { tasks: listed } = await api.listTasks();
  return {
    kind: "task",
    id,
    ttl: created.ttl,
    states,
    asked,
    again,
    status: again,
    listed: listed.filter((each) => each.taskId === id).map((each) => each.status),
    related: result._meta?.[RELATED]?.taskId,
    text: result.content?.[0]?.text,
  };
}

/** Lets the SDK drive the task; it polls. */
async function task_stream({ sdk, tool: [name, args] }) {
  const told = [];
  let text;
  const options = { task: { ttl: TTL_MS }, timeout: PATIENCE_MS };
  for await (const message of sdk.client.experimental.tasks.callToolStream({ name, arguments: args }, CallToolResultSchema, options)) {
    told.push(message.type);
    if (message.type === "error") throw message.error;
    text = message.result?.content?.[0]?.text;
  }
  return { told, text, asked: sdk.asked };
}

/** Cancels a task, twice. */
async function task_cancel({ sdk, tool }) {
  const api = sdk.client.experimental.tasks;
  const { taskId } = await create(sdk.client, tool);
  const cancelled = await api.cancelTask(taskId);
  const twice = await api.cancelTask(taskId).then(() => undefined, (error) => error.code);
  return { status: cancelled.status, again: (await api.getTask(taskId)).status, twice };
}

export const tasks = { task, task_stream, task_cancel };

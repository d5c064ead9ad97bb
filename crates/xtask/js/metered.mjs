// The function with a meter: counts what is asked of its objects, by class and operation, and
// what the queue brings, and cuts the atomic store off while it is told to. One isolate runs
// the function and its objects, so one tally has all.
import { WorkerEntrypoint } from "cloudflare:workers";
import Gateway, * as objects from "./index.js";

const counts = {};
const cut = new Set();

function count(what, by = 1) {
  counts[what] = (counts[what] ?? 0) + by;
}

/** An object that counts; its operation is the first part of the path it is asked by. */
const counted = (Inner, name) =>
  class {
    constructor(state, env) {
      this.inner = new Inner(state, env);
    }
    fetch(request) {
      count(`${name} ${new URL(request.url).pathname.split("/")[1]}`);
      if (cut.has(name)) throw new Error("out of reach");
      return this.inner.fetch(request);
    }
    alarm() {
      count(`${name} alarm`);
      return this.inner.alarm();
    }
  };

export const AtomicCell = counted(objects.AtomicCell, "store");
export const Keeper = counted(objects.Keeper, "keeper");

export default class extends Gateway {
  queue(batch) {
    count("queue batch");
    count("queue delivery", batch.messages.length);
    return super.queue(batch);
  }
}

export class Tally extends WorkerEntrypoint {
  async fetch(request) {
    if (request.method === "GET") return Response.json(counts);
    (await request.text()) === "cut" ? cut.add("store") : cut.delete("store");
    return new Response();
  }
}

// Stands between the gateway and the KV simulator on bare workerd: counts what passes, and
// lets the tool that started the runtime put the configuration in and read the counts.
let reads = 0;
let writes = 0;

export default {
  fetch(request, env) {
    if (request.method === "GET" || request.method === "POST") reads += 1;
    else writes += 1;
    return env.store.fetch(request);
  },
};

export const control = {
  async fetch(request, env) {
    if (request.method === "GET") return Response.json({ reads, writes });
    return env.store.fetch(request);
  },
};

// Preloaded into servers that offer no setting for the address they listen on: a `listen`
// that names no host means loopback, not every interface.
import { Server } from "node:net";

const LOOPBACK = "127.0.0.1";
const listen = Server.prototype.listen;

Server.prototype.listen = function (first, second, ...rest) {
  if (first !== null && typeof first === "object" && "port" in first) {
    return listen.call(this, { host: LOOPBACK, ...first }, second, ...rest);
  }
  const namesPort = typeof first === "number" || /^\d+$/.test(String(first));
  if (namesPort && typeof second !== "string") {
    return listen.call(this, first, LOOPBACK, second, ...rest);
  }
  return listen.call(this, first, second, ...rest);
};

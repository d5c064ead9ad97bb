// Preloaded before an upstream that would listen on every interface: keeps it on this machine.
import net from "node:net";

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  const open = typeof rest[0] !== "string" && ["number", "string"].includes(typeof port);
  return open ? listen.call(this, port, "127.0.0.1", ...rest) : listen.call(this, port, ...rest);
};

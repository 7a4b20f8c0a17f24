// A TCP proxy on this machine between a client and servers: each connection goes to one of them, and can be cut, or held up without
// being closed. Not here: what is sent through it.
import { once } from "node:events";
import { connect, createServer } from "node:net";

/** @param {() => number} choosePort where the next connection goes */
export async function startProxy(choosePort) {
  const connections = new Set();
  let isSilent = false;

  const server = createServer((inner) => {
    const outer = connect({ host: "127.0.0.1", port: choosePort() });
    const connection = [inner, outer];
    connections.add(connection);
    for (const [from, to] of [connection, [outer, inner]]) {
      from.setNoDelay(true);
      from.on("data", (bytes) => {
        if (to.write(bytes)) return;
        from.pause();
      });
      to.on("drain", () => isSilent || from.resume());
      from.on("error", () => to.destroy());
      from.on("close", () => (connections.delete(connection), to.destroySoon()));
      if (isSilent) from.pause();
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");

  const silence = (silent) => {
    isSilent = silent;
    for (const socket of [...connections].flat()) silent ? socket.pause() : socket.resume();
  };
  return {
    port: server.address().port,
    /** Ends all connections: by a reset, or as a program does that ends in order. What was under way is lost. */
    cut(byReset) {
      for (const socket of [...connections].flat()) byReset ? socket.resetAndDestroy() : socket.destroy();
    },
    /** Nothing goes through until `speak`, and nobody is told. */
    silence: () => silence(true),
    speak: () => silence(false),
    close() {
      server.close();
      this.cut(false);
    },
  };
}

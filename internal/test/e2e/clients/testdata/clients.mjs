// The clients that people use, behind one function: what opens one gives back
// how to run an operation with it. With retry a client mends its connection by
// itself; without, whatever ends an operation early goes to sink.error.
import * as sse from "graphql-sse";
import * as modern from "graphql-ws";
import { SubscriptionClient } from "subscriptions-transport-ws";
import WebSocket from "ws";

const socket = (url) => url.replace(/^http/, "ws");
const credentials = (key) => (key ? { "X-API-Key": key } : {});
const attempts = (retry) => (retry ? Infinity : 0);
const atOnce = async () => {};

const clients = {
  "graphql-ws": (url, key, retry) => {
    const client = modern.createClient({
      url: socket(url), webSocketImpl: WebSocket, connectionParams: credentials(key),
      retryAttempts: attempts(retry), retryWait: atOnce, shouldRetry: () => true,
    });
    return (operation, sink) => client.subscribe(operation, sink);
  },

  "subscriptions-transport-ws": (url, key, retry) => {
    const running = []; // it tells an operation nothing of the end of its connection
    const end = (error) => running.splice(0).forEach((sink) => sink.error(error));
    const client = new SubscriptionClient(socket(url), {
      connectionParams: credentials(key), reconnect: retry, connectionCallback: (refusal) => refusal && end(refusal),
    }, WebSocket);
    if (!retry) client.onDisconnected(() => end(new Error("disconnected")));
    return (operation, sink) => {
      running.push(sink);
      client.request(operation).subscribe(sink);
    };
  },

  "graphql-sse": (url, key, retry) => {
    const client = sse.createClient({ url, headers: credentials(key), retryAttempts: attempts(retry), retry: atOnce });
    return (operation, sink) => client.subscribe(operation, sink);
  },
};

export const open = (name, url, key, retry = false) => clients[name](url, key, retry);

export const print = (line) => console.log(JSON.stringify(line));

// What ended an operation: an error of the server's, a close frame, a response.
export const reason = (error) => {
  const first = Array.isArray(error) ? error[0] : error;
  return {
    code: String(first.extensions?.code ?? first.code ?? first.response?.status ?? ""),
    message: first.reason || first.message || "",
  };
};

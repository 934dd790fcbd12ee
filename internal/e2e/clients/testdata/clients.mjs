// The clients that people use, behind one function each: how to open one, and
// how to run an operation with it. Whatever ends an operation before it is
// complete goes to fail.
import * as sse from "graphql-sse";
import * as modern from "graphql-ws";
import { SubscriptionClient } from "subscriptions-transport-ws";
import WebSocket from "ws";

const socket = (url) => url.replace(/^http/, "ws");

export const clients = {
  "graphql-ws": (url, key) => {
    const client = modern.createClient({
      url: socket(url), webSocketImpl: WebSocket, retryAttempts: 0, connectionParams: { "X-API-Key": key },
    });
    return {
      run: (operation, next, fail, complete) => client.subscribe(operation, { next, error: fail, complete }),
      close: () => client.dispose(),
    };
  },
  "subscriptions-transport-ws": (url, key) => {
    const client = new SubscriptionClient(socket(url), { reconnect: false, connectionParams: { "X-API-Key": key } }, WebSocket);
    return {
      run: (operation, next, fail, complete) => {
        client.onDisconnected(() => fail(new Error("disconnected")));
        client.onConnected((refusal) => refusal && fail(refusal));
        client.onError(fail);
        client.request(operation).subscribe({ next, error: fail, complete });
      },
      close: () => client.close(),
    };
  },
  "graphql-sse": (url, key) => {
    const client = sse.createClient({ url, retryAttempts: 0, headers: { "X-API-Key": key } });
    return {
      run: (operation, next, fail, complete) => client.subscribe(operation, { next, error: fail, complete }),
      close: () => client.dispose(),
    };
  },
};

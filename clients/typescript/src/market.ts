import { print } from "@0no-co/graphql.web";
import type { TadaDocumentNode } from "gql.tada";
import { createClient, type Client } from "graphql-ws";

import { MarketError, type GraphQLErrorPayload } from "./error.js";

/** The server and the agent to connect as. */
export interface Options {
  /** The base URL of the server, like `https://market.example.com`. */
  url: string;
  /** The API key of the agent. Without one, only public operations succeed. */
  key?: string | undefined;
  /** The WebSocket class, for runtimes without a global one, like Node 20: the class of the package `ws`. */
  webSocketImpl?: unknown;
  /** The timeout of a request in milliseconds. Defaults to two minutes, because a hire waits for the agent. */
  timeout?: number | undefined;
}

/** How often a request without a response is sent. */
const maxAttempts = 3;

/** A client for the GraphQL API of an AgentMarket server. */
export class Market {
  readonly #options: Options;
  #socket: Client | undefined;

  constructor(options: Options) {
    this.#options = options;
  }

  /**
   * Executes a query or a mutation. It retries a request without a response with the same
   * Idempotency-Key, so the server executes the operation at most once. Pass your own
   * `idempotencyKey` to get the same guarantee across restarts of your program. Throws
   * {@link MarketError}.
   */
  async request<Result, Variables>(document: TadaDocumentNode<Result, Variables>, variables: Variables, idempotencyKey: string = crypto.randomUUID()): Promise<Result> {
    const headers: Record<string, string> = { "Content-Type": "application/json", "Idempotency-Key": idempotencyKey };
    if (this.#options.key) headers["X-API-Key"] = this.#options.key;
    const body = JSON.stringify({ query: print(document), variables });
    for (let attempt = 1; ; attempt++) {
      try {
        const signal = AbortSignal.timeout(this.#options.timeout ?? 120_000);
        const response = await fetch(`${this.#options.url}/graphql`, { method: "POST", headers, body, signal });
        const result = (await response.json()) as { data?: Result; errors?: GraphQLErrorPayload[] };
        if (result.errors?.[0]) throw new MarketError(result.errors[0]);
        return result.data as Result;
      } catch (error) {
        if (error instanceof MarketError) throw error;
        if (attempt === maxAttempts) throw new MarketError({ message: "no response from the server" }, error);
        await new Promise((resolve) => setTimeout(resolve, 200 * attempt));
      }
    }
  }

  /**
   * Subscribes until the loop over the generator ends. It reconnects after a lost connection.
   * If the document has a variable `$after` and selects `cursor`, it resumes after the last
   * event, so that each event arrives exactly once. Throws {@link MarketError}, for example
   * with the code `CURSOR_EXPIRED`.
   */
  async *subscribe<Result, Variables>(document: TadaDocumentNode<Result, Variables>, variables: Variables): AsyncGenerator<Result, void> {
    this.#socket ??= this.#connect();
    const currentVariables = { ...variables } as Record<string, unknown>;
    const queue: Result[] = [];
    let wake = () => {};
    let ended = false;
    let failure: unknown;
    const end = (cause?: unknown) => {
      [ended, failure] = [true, cause];
      wake();
    };
    const unsubscribe = this.#socket.subscribe<Record<string, { cursor?: unknown } | null>>(
      { query: print(document), variables: currentVariables },
      {
        next: ({ data, errors }) => {
          if (errors?.[0]) return end(errors);
          const cursor = Object.values(data ?? {})[0]?.cursor;
          if (typeof cursor === "string") currentVariables["after"] = cursor; // of the last received event, which may still be queued
          queue.push(data as Result);
          wake();
        },
        error: end,
        complete: () => end(),
      },
    );
    try {
      for (;;) {
        for (let next = queue.shift(); next !== undefined; next = queue.shift()) yield next;
        if (failure) throw toMarketError(failure);
        if (ended) return;
        await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      unsubscribe();
    }
  }

  /** Closes the WebSocket connection of the subscriptions. */
  async close(): Promise<void> {
    await this.#socket?.dispose();
  }

  /** Creates the WebSocket client that all subscriptions share. */
  #connect(): Client {
    const { url, key, webSocketImpl } = this.#options;
    return createClient({
      url: `${url.replace(/^http/, "ws")}/graphql`,
      webSocketImpl,
      connectionParams: key ? { "X-API-Key": key } : {},
      retryAttempts: Infinity,
      shouldRetry: (cause) => (cause as { code?: unknown }).code !== 4403, // 4403 means an invalid key
    });
  }
}

/** Converts the end of a subscription to an error: GraphQL errors, or a closed connection. */
function toMarketError(failure: unknown): MarketError {
  const first = Array.isArray(failure) ? (failure[0] as GraphQLErrorPayload) : { message: "the server rejected the connection" };
  return new MarketError(first, failure);
}

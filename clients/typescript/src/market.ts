import { print } from "@0no-co/graphql.web";
import type { TadaDocumentNode } from "gql.tada";
import { createClient, type Client } from "graphql-ws";

import { MarketError, type Refusal } from "./error.js";

/** Which market, and as whom. */
export interface Options {
  /** The market's address, like `https://market.example.com`. */
  url: string;
  /** The agent's API key; without one only what is public is answered. */
  key?: string | undefined;
  /** The WebSocket class, where there is none at hand, as in Node 20: that of the package `ws`. */
  webSocketImpl?: unknown;
  /** How long an answer may take, in milliseconds; two minutes unless it is set. A hire waits for the agent. */
  timeout?: number | undefined;
}

/** How often a request is sent that got no answer. */
const tries = 3;

/** A market, asked over its GraphQL API. */
export class Market {
  readonly #options: Options;
  #socket: Client | undefined;

  constructor(options: Options) {
    this.#options = options;
  }

  /**
   * Runs a query or a mutation. A request that gets no answer is sent again, with the same
   * Idempotency-Key, so that what it changes is changed once. Give `once` to have that hold
   * over restarts of your program too. Throws {@link MarketError}.
   */
  async ask<Result, Variables>(document: TadaDocumentNode<Result, Variables>, variables: Variables, once: string = crypto.randomUUID()): Promise<Result> {
    const headers: Record<string, string> = { "Content-Type": "application/json", "Idempotency-Key": once };
    if (this.#options.key) headers["X-API-Key"] = this.#options.key;
    const body = JSON.stringify({ query: print(document), variables });
    for (let attempt = 1; ; attempt++) {
      try {
        const signal = AbortSignal.timeout(this.#options.timeout ?? 120_000);
        const response = await fetch(`${this.#options.url}/graphql`, { method: "POST", headers, body, signal });
        const answer = (await response.json()) as { data?: Result; errors?: Refusal[] };
        if (answer.errors?.[0]) throw new MarketError(answer.errors[0]);
        return answer.data as Result;
      } catch (error) {
        if (error instanceof MarketError) throw error;
        if (attempt === tries) throw new MarketError({ message: "the market gives no answer" }, error);
        await new Promise((resolve) => setTimeout(resolve, 200 * attempt));
      }
    }
  }

  /**
   * Follows a subscription until the loop over it is left. When the connection breaks it is
   * opened again; with a variable `$after` in the document, and `cursor` among its fields, it
   * goes on after the last event: none is lost and none comes twice. Throws
   * {@link MarketError}, `CURSOR_EXPIRED` among them.
   */
  async *subscribe<Result, Variables>(document: TadaDocumentNode<Result, Variables>, variables: Variables): AsyncGenerator<Result, void> {
    this.#socket ??= this.#connect();
    const given = { ...variables } as Record<string, unknown>;
    const waiting: Result[] = [];
    let wake = () => {};
    let ended = false;
    let failure: unknown;
    const end = (why?: unknown) => {
      [ended, failure] = [true, why];
      wake();
    };
    const leave = this.#socket.subscribe<Record<string, { cursor?: unknown } | null>>(
      { query: print(document), variables: given },
      {
        next: ({ data, errors }) => {
          if (errors?.[0]) return end(errors);
          const cursor = Object.values(data ?? {})[0]?.cursor;
          if (typeof cursor === "string") given["after"] = cursor; // of what came, not of what was taken from here
          waiting.push(data as Result);
          wake();
        },
        error: end,
        complete: () => end(),
      },
    );
    try {
      for (;;) {
        for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) yield next;
        if (failure) throw refusal(failure);
        if (ended) return;
        await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      leave();
    }
  }

  /** Closes the connection of the subscriptions. */
  async close(): Promise<void> {
    await this.#socket?.dispose();
  }

  /** The connection of all subscriptions, which is opened with the first. */
  #connect(): Client {
    const { url, key, webSocketImpl } = this.#options;
    return createClient({
      url: `${url.replace(/^http/, "ws")}/graphql`,
      webSocketImpl,
      connectionParams: key ? { "X-API-Key": key } : {},
      retryAttempts: Infinity,
      shouldRetry: (why) => (why as { code?: unknown }).code !== 4403, // a wrong key stays wrong
    });
  }
}

/** What ended a subscription: errors of GraphQL, or the end of a connection. */
function refusal(failure: unknown): MarketError {
  const first = Array.isArray(failure) ? (failure[0] as Refusal) : { message: "the market refuses the connection" };
  return new MarketError(first, failure);
}

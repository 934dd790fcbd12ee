import { print } from "@0no-co/graphql.web";
import type { TadaDocumentNode } from "gql.tada";
import { createClient, type Client } from "graphql-ws";

import { MarketError, type Refusal } from "./error.js";

/** Which market, and as whom. */
export interface Options {
  /** The market's address, like `https://market.example.com`. */
  url: string;
  /** The agent's API key; without one only what is public is answered. */
  key?: string;
  /** The WebSocket class, where there is none at hand, as in Node 20: that of the package `ws`. */
  webSocketImpl?: unknown;
  /** How long an answer may take, in milliseconds; two minutes unless it is set. A hire waits for the agent. */
  timeout?: number;
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
    const given = { ...variables } as Record<string, unknown>;
    this.#socket ??= this.#connect();
    try {
      for await (const { data, errors } of this.#socket.iterate<Record<string, unknown>>({ query: print(document), variables: given })) {
        if (errors?.[0]) throw errors;
        yield data as Result;
        const cursor = Object.values(data ?? {}).map((event) => (event as { cursor?: unknown } | null)?.cursor)[0];
        if (typeof cursor === "string") given["after"] = cursor;
      }
    } catch (error) {
      if (Array.isArray(error)) throw new MarketError(error[0] as Refusal);
      throw new MarketError({ message: "the market refuses the connection" }, error);
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
      shouldRetry: () => true,
    });
  }
}

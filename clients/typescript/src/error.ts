/** A GraphQL error in a response of the server. */
export interface GraphQLErrorPayload {
  message: string;
  extensions?: { code?: string; field?: string; retryAfter?: number; requestId?: string };
}

/** An error response, after which nothing has changed, or a missing response, after which the operation may have been executed. */
export class MarketError extends Error {
  /** The error code, like `CONFLICT` or `INSUFFICIENT_CREDITS`; "" if there was no response. */
  readonly code: string;
  /** The invalid input field, if any. */
  readonly field: string | undefined;
  /** Seconds until a retry makes sense, if known. */
  readonly retryAfter: number | undefined;

  constructor(payload: GraphQLErrorPayload, cause?: unknown) {
    super(payload.message, { cause });
    this.name = "MarketError";
    this.code = payload.extensions?.code ?? "";
    this.field = payload.extensions?.field;
    this.retryAfter = payload.extensions?.retryAfter;
  }
}

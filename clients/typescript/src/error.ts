/** An error of GraphQL, as the market sends it. */
export interface Refusal {
  message: string;
  extensions?: { code?: string; field?: string; retryAfter?: number; requestId?: string };
}

/** The market's refusal, after which nothing was changed; or that it gave no answer, when what was asked may have been done. */
export class MarketError extends Error {
  /** What is wrong, for programs: `CONFLICT`, `INSUFFICIENT_CREDITS` and so on; "" when no answer came. */
  readonly code: string;
  /** The field of the input that is wrong, if one is. */
  readonly field: string | undefined;
  /** In how many seconds to try again, if it says. */
  readonly retryAfter: number | undefined;

  constructor(refusal: Refusal, cause?: unknown) {
    super(refusal.message, { cause });
    this.name = "MarketError";
    this.code = refusal.extensions?.code ?? "";
    this.field = refusal.extensions?.field;
    this.retryAfter = refusal.extensions?.retryAfter;
  }
}

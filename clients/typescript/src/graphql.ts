import { initGraphQLTada } from "gql.tada";

import type { introspection } from "./schema.js";

/**
 * Parses a GraphQL document and infers the types of its variables and its result from the
 * schema. `gql.tada check` reports unknown fields. `tsc` alone gives them the type
 * `unknown`.
 */
export const graphql = initGraphQLTada<{
  introspection: introspection;
  scalars: {
    /** A time in UTC, in RFC 3339 format. */
    DateTime: string;
    /** An absolute URL. */
    URL: string;
    /** A whole number of credits, never above 2^53 - 1. */
    Credits: number;
  };
}>();

export type { FragmentOf, ResultOf, VariablesOf } from "gql.tada";
export { readFragment } from "gql.tada";

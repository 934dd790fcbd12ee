import { initGraphQLTada } from "gql.tada";

import type { introspection } from "./schema.js";

/**
 * A GraphQL document with the types of its variables and of its result, checked against
 * the schema: a field that there is not is an error of `gql.tada check`, and of type
 * `unknown` where it is used.
 */
export const graphql = initGraphQLTada<{
  introspection: introspection;
  scalars: {
    /** A moment in UTC, as RFC 3339. */
    DateTime: string;
    /** An absolute URL. */
    URL: string;
    /** A whole number of credits, never above 2^53 - 1. */
    Credits: number;
  };
}>();

export type { FragmentOf, ResultOf, VariablesOf } from "gql.tada";
export { readFragment } from "gql.tada";

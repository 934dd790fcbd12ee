export { MarketError, type GraphQLErrorPayload } from "./error.js";
export { graphql, readFragment, type FragmentOf, type ResultOf, type VariablesOf } from "./graphql.js";
export { Market, type Options } from "./market.js";

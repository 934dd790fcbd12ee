// The GraphQL libraries that applications use, set up as their documentation says, behind
// one function: it returns how to run an operation, with headers, and how to subscribe.
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { Client, cacheExchange, fetchExchange, subscriptionExchange } from "@urql/core";
import { OperationTypeNode, buildClientSchema, getIntrospectionQuery } from "graphql";
import { GraphQLClient } from "graphql-request";
import * as sse from "graphql-sse";
import { createClient } from "graphql-ws";
import relay from "relay-runtime";
import WebSocket from "ws";

import { artifact } from "./relay_artifact.mjs";

const socketClient = (url, headers) =>
  createClient({ url: url.replace(/^http/, "ws"), webSocketImpl: WebSocket, connectionParams: headers, retryAttempts: 0 });

const libraries = {
  "@apollo/client": (url, headers) => {
    const socket = socketClient(url, headers);
    const isSubscription = ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION;
    const client = new ApolloClient({
      cache: new InMemoryCache(),
      link: ApolloLink.split(isSubscription, new GraphQLWsLink(socket), new HttpLink({ uri: url, headers })),
    });
    return {
      run: async (document, variables, more = {}) => {
        const operation = gql(document);
        const isMutation = operation.definitions[0].operation === "mutation";
        const options = { variables, context: { headers: more } };
        return (await (isMutation ? client.mutate({ mutation: operation, ...options }) : client.query({ query: operation, ...options }))).data;
      },
      subscribe: (document, variables, sink) =>
        client.subscribe({ query: gql(document), variables }).subscribe({ next: ({ data, error }) => (error ? sink.error(error) : sink.next(data)), error: sink.error }),
      close: () => socket.dispose(),
      reason: (error) => error.errors?.[0].extensions.code ?? error.statusCode,
    };
  },

  "@urql/core": (url, headers) => {
    const socket = socketClient(url, headers);
    const forwardSubscription = ({ query, variables }) => ({
      subscribe: (sink) => ({ unsubscribe: socket.subscribe({ query, variables }, sink) }),
    });
    const client = new Client({ url, fetchOptions: { headers }, exchanges: [cacheExchange, fetchExchange, subscriptionExchange({ forwardSubscription })] });
    return {
      run: async (document, variables, more = {}) => {
        const run = document.startsWith("mutation") ? client.mutation.bind(client) : client.query.bind(client);
        const { data, error } = await run(document, variables, { fetchOptions: { headers: { ...headers, ...more } } }).toPromise();
        if (error) throw error;
        return data;
      },
      subscribe: (document, variables, sink) => client.subscription(document, variables).subscribe(({ data, error }) => (error ? sink.error(error) : sink.next(data))),
      close: () => socket.dispose(),
      reason: (error) => error.graphQLErrors?.[0]?.extensions.code ?? error.response?.status,
    };
  },

  "graphql-request": (url, headers) => { // with graphql-sse, since it has no subscriptions
    const client = new GraphQLClient(url, { headers });
    const events = sse.createClient({ url, headers, retryAttempts: 0 });
    return {
      run: (document, variables, more) => client.request(document, variables, more),
      subscribe: (query, variables, sink) => ({
        unsubscribe: events.subscribe({ query, variables }, { next: ({ data, errors }) => (errors ? sink.error(errors) : sink.next(data)), error: sink.error, complete: () => {} }),
      }),
      close: () => events.dispose(),
      reason: (error) => error.response?.errors?.[0].extensions.code ?? error.response?.status,
    };
  },

  "relay-runtime": (url, headers) => {
    const socket = socketClient(url, headers);
    const post = async (body, more) => {
      const response = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json", ...headers, ...more }, body: JSON.stringify(body) });
      return response.json();
    };
    const { Environment, Network, Observable, RecordSource, Store, commitMutation, fetchQuery, requestSubscription } = relay;
    const environment = new Environment({
      store: new Store(new RecordSource()),
      network: Network.create(
        ({ text: query }, variables, { metadata }) => post({ query, variables }, metadata?.headers),
        ({ text: query }, variables) => Observable.create((sink) => socket.subscribe({ query, variables }, sink)),
      ),
    });
    const schema = fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ query: getIntrospectionQuery() }) })
      .then(async (response) => buildClientSchema((await response.json()).data));
    return {
      run: async (document, variables, more = {}) => {
        const request = artifact(await schema, document);
        const cacheConfig = { force: true, metadata: { headers: more } };
        if (request.params.operationKind === "query") return fetchQuery(environment, request, variables, { networkCacheConfig: cacheConfig }).toPromise();
        return new Promise((resolve, onError) => {
          const onCompleted = (data, errors) => (errors ? onError({ source: { errors } }) : resolve(data));
          commitMutation(environment, { mutation: request, variables, cacheConfig, onCompleted, onError });
        });
      },
      subscribe: (document, variables, sink) => {
        const opened = schema.then((types) => requestSubscription(environment, { subscription: artifact(types, document), variables, onNext: sink.next, onError: sink.error }));
        return { unsubscribe: () => opened.then((subscription) => subscription.dispose()) };
      },
      close: () => socket.dispose(),
      reason: (error) => error.source?.errors?.[0].extensions.code,
    };
  },
};

export const open = (name, url, key) => libraries[name](url, { "X-API-Key": key });

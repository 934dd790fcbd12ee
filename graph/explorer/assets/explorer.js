// Sets up GraphiQL: the endpoint, the API key and the default query.
'use strict';

(async () => {
  const element = React.createElement;
  const root = document.getElementById('explorer');
  const endpoint = new URL(root.dataset.graphql, location.href);
  const socket = new URL(endpoint);
  socket.protocol = endpoint.protocol === 'https:' ? 'wss:' : 'ws:';

  // The key is kept until the tab is closed: sessionStorage, never localStorage.
  const storedKey = 'agentmarket:api-key';
  const keyHeaders = () => {
    const key = sessionStorage.getItem(storedKey);
    return key ? { 'X-API-Key': key } : {};
  };
  const rememberKey = (event) => sessionStorage.setItem(storedKey, event.target.value.trim());

  // Each operation creates a fetcher, so that it uses the current key. Each
  // subscription has its own socket.
  const fetcher = (operation, options) =>
    GraphiQL.createFetcher({
      url: endpoint.href,
      headers: { Accept: 'application/graphql-response+json, application/json', ...keyHeaders() },
      subscriptionUrl: socket.href,
      wsConnectionParams: keyHeaders(),
      enableIncrementalDelivery: false,
    })(operation, options);

  const keyBox = element(
    'label',
    { className: 'market-key' },
    'API key',
    element('input', {
      id: 'api-key',
      type: 'password',
      autoComplete: 'off',
      spellCheck: false,
      placeholder: 'none: public data only',
      title: 'Sent as X-API-Key. Deleted when this tab is closed.',
      defaultValue: sessionStorage.getItem(storedKey) ?? '',
      onChange: rememberKey,
    }),
  );

  const examples = await fetch(root.dataset.examples);
  const page = element(
    GraphiQL,
    { fetcher, defaultQuery: examples.ok ? await examples.text() : '' },
    element(GraphiQL.Logo, null, element('h1', { className: 'market-name' }, 'AgentMarket'), keyBox),
  );
  ReactDOM.createRoot(root).render(page);
})();

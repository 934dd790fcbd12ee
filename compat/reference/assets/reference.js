// Sets up RapiDoc: the API key, the server, and the dark and light themes.
'use strict';

(async () => {
  const reference = document.getElementById('reference');
  const keyBox = document.getElementById('api-key');

  // The key is kept until the tab is closed and shared with the explorer:
  // sessionStorage, never localStorage.
  const storedKey = 'agentmarket:api-key';
  const useKey = () => reference.setAttribute('api-key-value', keyBox.value.trim() || '-');
  keyBox.value = sessionStorage.getItem(storedKey) ?? '';
  keyBox.addEventListener('input', () => {
    sessionStorage.setItem(storedKey, keyBox.value.trim());
    useKey();
  });
  useKey();

  const dark = matchMedia('(prefers-color-scheme: dark)');
  const useTheme = () => {
    reference.setAttribute('theme', dark.matches ? 'dark' : 'light');
    reference.setAttribute('nav-bg-color', dark.matches ? '#22252b' : '#f4f5f7');
    reference.setAttribute('nav-text-color', dark.matches ? '#c9cdd4' : '#3d434c'); // the default has too little contrast
  };
  dark.addEventListener('change', useTheme);
  useTheme();

  // The document contains the public URL. Send requests to the server that the page is
  // from instead, the only host that its policy allows.
  await customElements.whenDefined('rapi-doc');
  const response = await fetch(reference.dataset.openapi);
  const description = await response.json();
  description.servers = [{ url: new URL('.', response.url).href.replace(/\/$/, '') }];

  // RapiDoc shows only named examples and generates others: name the documented ones.
  const name = ({ content = {} }) => Object.values(content).forEach((media) => {
    if (media.example !== undefined) media.examples = { Documented: { value: media.example } };
  });
  for (const operation of Object.values(description.paths).flatMap(Object.values)) {
    [operation.requestBody ?? {}, ...Object.values(operation.responses)].forEach(name);
  }
  await reference.loadSpec(description);
  await reference.updateComplete;

  // RapiDoc's fields have no labels for screen readers.
  const { shadowRoot } = reference;
  shadowRoot.querySelector('nav').setAttribute('aria-label', 'Routes');
  for (const request of shadowRoot.querySelectorAll('api-request')) {
    await request.updateComplete;
    for (const field of request.shadowRoot.querySelectorAll('input, textarea')) {
      field.setAttribute('aria-label', field.dataset.pname ?? 'Request body');
    }
  }
})();

// The page's own part: the key that requests carry, where they go, dark and light.
'use strict';

(async () => {
  const reference = document.getElementById('reference');
  const keyBox = document.getElementById('api-key');

  // The key lives as long as the tab, and is the explorer's too: sessionStorage,
  // never localStorage.
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
    reference.setAttribute('nav-text-color', dark.matches ? '#c9cdd4' : '#3d434c'); // its own is too faint to read
  };
  dark.addEventListener('change', useTheme);
  useTheme();

  // The document names the public address. What is tried here goes to where the page
  // came from, which is the only place it may call.
  await customElements.whenDefined('rapi-doc');
  const answer = await fetch(reference.dataset.openapi);
  const description = await answer.json();
  description.servers = [{ url: location.origin }];

  // RapiDoc shows named examples only, and makes some up where there are none.
  const name = ({ content = {} }) => Object.values(content).forEach((media) => {
    if (media.example !== undefined) media.examples = { Documented: { value: media.example } };
  });
  for (const operation of Object.values(description.paths).flatMap(Object.values)) {
    [operation.requestBody ?? {}, ...Object.values(operation.responses)].forEach(name);
  }
  await reference.loadSpec(description);
  await reference.updateComplete;

  // RapiDoc gives its fields no names for those who cannot see where they stand.
  const { shadowRoot } = reference;
  shadowRoot.querySelector('nav').setAttribute('aria-label', 'Routes');
  for (const request of shadowRoot.querySelectorAll('api-request')) {
    await request.updateComplete;
    for (const field of request.shadowRoot.querySelectorAll('input, textarea')) {
      field.setAttribute('aria-label', field.dataset.pname ?? 'Request body');
    }
  }
})();

package clients_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"agentmarket.space/server/internal/test/browser"
	"agentmarket.space/server/internal/test/e2e/testserver"
)

// TestExplorerPage uses the explorer like a person: it types a key, runs a query, watches a
// subscription and reads the documentation.
func TestExplorerPage(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	agent := server.Register("Reader", map[string]any{"capabilities": []string{"reading"}})
	poster := server.Register("Poster", nil)
	posting := func(title string) {
		t.Helper()
		if err := postTask(server, poster.Key, title, 10, "reading"); err != nil {
			t.Fatal(err)
		}
	}
	page := openPage(t, server.URL+"/explorer")
	waitForExplorer(page)
	enterAPIKey(page, agent.Key)

	runInExplorer(page, `{ viewer { agent { name } } }`)
	page.WaitFor(explorerResult + `.includes('"name": "Reader"')`)
	posting("Before")
	runInExplorer(page, `subscription { taskPosted(after: "0") { task { title } } }`)
	page.WaitFor(explorerResult + `.includes('"title": "Before"')`)
	posting("While it looks")
	page.WaitFor(explorerResult + `.includes('"title": "While it looks"')`)

	page.Evaluate(`document.querySelector('[aria-label="Show Documentation Explorer"]').click()`)
	page.WaitFor(`document.querySelector('.graphiql-doc-explorer')?.innerText.includes('Subscription')`)
	checkRequests(t, page, server.URL, "/explorer/graphiql.js", "/explorer/react-dom.js", "/graphql")
	checkAccessibility(t, page, `node.closest('.graphiql-container') && !node.closest('.graphiql-logo')`, map[string]string{
		"color-contrast":              "GraphiQL's colours of code, in light",
		"label":                       "CodeMirror's hidden text areas",
		"nested-interactive":          "GraphiQL's tabs, which have buttons in them",
		"scrollable-region-focusable": "CodeMirror scrolls with the cursor",
	})

	page.Evaluate(`document.querySelector('[aria-label="Open settings dialog"]').click()`)
	page.WaitFor(`document.querySelector('.graphiql-dialog')`)
	checkKeyStorage(t, page, agent.Key)
}

// TestReferencePage opens the reference of the REST API and sends a request from it.
func TestReferencePage(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	agent := server.Register("Reader", nil)
	proxy := startProxy(t, server) // the page has another address than the OpenAPI document
	page := openPage(t, proxy.url+"/docs")
	waitForReference(page)
	tryRoute(page, "get-/api/agents", `"name": "Reader"`)
	enterAPIKey(page, agent.Key)
	tryRoute(page, "get-/api/wallet", `"balance": 100`)
	if example := page.Evaluate(apiRequest("post-/api/tasks") + `.querySelector('textarea').value`); !strings.Contains(example, `"title": "Summarize this research paper"`) {
		t.Errorf("the example of a task is %s", example)
	}
	tryRoute(page, "post-/api/tasks", `"balance": 75`)

	checkRequests(t, page, proxy.url, "/docs/rapidoc.js", "/openapi.json", "/api/tasks")
	checkAccessibility(t, page, `node.getRootNode() !== document`, map[string]string{
		"scrollable-region-focusable": "RapiDoc's panel of an answer",
	})
	checkKeyStorage(t, page, agent.Key)
}

// TestWelcomePage: the root page links to the others and is accessible.
func TestWelcomePage(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	page := openPage(t, server.URL+"/")
	page.WaitFor(`document.querySelector('h1')?.innerText === 'AgentMarket'`)
	var links []string
	if err := json.Unmarshal([]byte(page.Evaluate(`JSON.stringify([...document.links].map((link) => link.href))`)), &links); err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if status, text := server.Do("GET", strings.TrimPrefix(link, server.URL), "", ""); status != 200 {
			t.Errorf("%s: %d %s", link, status, text)
		}
	}
	if len(links) < 6 {
		t.Errorf("the page has the links %q", links)
	}
	checkRequests(t, page, server.URL, "/")
	checkAccessibility(t, page, `false`, nil)
}

// explorerEditor and explorerResult are the editor of operations, and the text of the
// last result.
const (
	explorerEditor = `document.querySelector('.graphiql-query-editor .CodeMirror').CodeMirror`
	explorerResult = `document.querySelector('.result-window .CodeMirror').CodeMirror.getValue()`
)

// waitForExplorer waits until the explorer shows the examples.
func waitForExplorer(page *browser.Tab) {
	page.WaitFor(`document.querySelector('.graphiql-query-editor .CodeMirror')?.CodeMirror.getValue().includes('mutation Register')`)
}

// runInExplorer types an operation and runs it.
func runInExplorer(page *browser.Tab, operation string) {
	page.Evaluate(explorerEditor + `.setValue('` + operation + `'), ` + explorerEditor + `.focus()`)
	page.WaitFor(explorerEditor + `.documentAST?.loc.source.body === ` + explorerEditor + `.getValue()`) // it is parsed
	ctrlEnter := map[string]any{"type": "rawKeyDown", "modifiers": 2, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
	page.Call("Input.dispatchKeyEvent", ctrlEnter, nil)
}

// waitForReference waits until the REST reference is complete.
func waitForReference(page *browser.Tab) {
	page.WaitFor(`[...document.querySelector('rapi-doc')?.shadowRoot?.querySelectorAll('api-request') ?? []].at(-1)?.shadowRoot?.querySelector('[aria-label]')`)
}

// apiRequest is the form of a route in the REST reference.
func apiRequest(route string) string {
	return `document.querySelector('rapi-doc').shadowRoot.getElementById('` + route + `').querySelector('api-request').shadowRoot`
}

// tryRoute sends the example request of a route and waits for a response with a text.
func tryRoute(page *browser.Tab, route, answer string) {
	page.Evaluate(apiRequest(route) + `.querySelector('[part~="btn-try"]').click()`)
	page.WaitFor(apiRequest(route) + `.querySelector('.response-message')?.innerText.includes('200')`)
	page.WaitFor(`[...` + apiRequest(route) + `.querySelectorAll('.tab-content pre')].some((pre) => pre.textContent.includes('` + answer + `'))`)
}

// browserMutex allows one browser at a time, because one keeps a small machine busy.
var browserMutex sync.Mutex

// openPage opens a page once no other test has a browser.
func openPage(t *testing.T, address string) *browser.Tab {
	t.Helper()
	browserMutex.Lock()
	t.Cleanup(browserMutex.Unlock) // after the browser has exited
	return browser.Open(t, address)
}

// enterAPIKey types an API key into the page's input.
func enterAPIKey(page *browser.Tab, key string) {
	page.Evaluate(`document.getElementById('api-key').focus()`)
	page.Call("Input.insertText", map[string]any{"text": key}, nil)
}

// checkKeyStorage checks that the next page of the same tab finds the key, and another tab
// does not.
func checkKeyStorage(t *testing.T, page *browser.Tab, key string) {
	t.Helper()
	if kept := page.Evaluate(`JSON.stringify({...sessionStorage})`); !strings.Contains(kept, key) {
		t.Errorf("the key is not stored for the tab: sessionStorage is %s", kept)
	}
	if kept := page.Evaluate(`JSON.stringify({...localStorage})`); strings.Contains(kept, key) {
		t.Errorf("the key outlives the tab: localStorage is %s", kept)
	}
}

// checkRequests checks that a page sent requests to its own server only, including the
// given ones, and that the browser logged no error.
func checkRequests(t *testing.T, page *browser.Tab, url string, wantPaths ...string) {
	t.Helper()
	requests, complaints := page.RequestsAndErrors()
	for _, address := range requests {
		ours := strings.HasPrefix(address, url+"/") || strings.HasPrefix(address, strings.Replace(url, "http", "ws", 1)+"/")
		if !ours && !strings.HasPrefix(address, "data:") {
			t.Errorf("the page requested %s", address)
		}
	}
	for _, path := range wantPaths {
		if !slices.Contains(requests, url+path) {
			t.Errorf("%s was not requested; the requests were %v", path, requests)
		}
	}
	for _, complaint := range complaints {
		t.Errorf("the browser logged: %s", complaint)
	}
}

// checkAccessibility runs axe on a page in light and dark mode. Violations inside the
// page's library, where vendored is true of the node, must be listed with a reason; a
// listed rule without a violation is an error.
func checkAccessibility(t *testing.T, page *browser.Tab, vendored string, listed map[string]string) {
	t.Helper()
	packages := t.TempDir()
	testserver.LinkNodeModules(t, "testdata", packages)
	axe, err := os.ReadFile(filepath.Join(packages, "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	page.Evaluate(string(axe) + "\n;0")
	broken := map[string]bool{}
	for _, scheme := range []string{"light", "dark"} {
		preferred := map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": scheme}}}
		page.Call("Emulation.setEmulatedMedia", preferred, nil)
		page.WaitFor(`matchMedia('(prefers-color-scheme: ` + scheme + `)').matches`)
		page.Evaluate(`new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))`)
		page.WaitFor(`[document, ...[...document.querySelectorAll('*')].map((node) => node.shadowRoot ?? document)].every((root) =>
			root.getAnimations().every(({playState}) => playState !== 'running'))`) // colours may be in transition
		var found []struct {
			Rule, Node, Why string
			Vendored        bool
		}
		text := page.Evaluate(`axe.run({elementRef: true, resultTypes: ['violations'], preload: false, iframes: false}).then(({violations}) => JSON.stringify(violations.flatMap(({id, nodes}) =>
			nodes.map(({element: node, failureSummary: why}) => ({rule: id, why, node: node.outerHTML.slice(0, 200), vendored: Boolean(` + vendored + `)})))))`)
		if err := json.Unmarshal([]byte(text), &found); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for _, f := range found {
			if !f.Vendored || listed[f.Rule] == "" {
				t.Errorf("%s: %s is violated by %s: %s", scheme, f.Rule, f.Node, f.Why)
			}
			broken[f.Rule] = true
		}
	}
	for _, rule := range slices.Sorted(maps.Keys(listed)) {
		if !broken[rule] {
			t.Errorf("%s is not violated any more: remove it from the list", rule)
		}
	}
}

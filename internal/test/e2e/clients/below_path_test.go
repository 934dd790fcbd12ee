package clients_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// reverseProxy is a real reverse proxy with its configuration from docs/operations.md.
type reverseProxy struct {
	program, language string
	replace           []string // changes to the configuration, for strings.NewReplacer
	command           func(program, dir, config, address string) (*exec.Cmd, error)
}

// TestBelowPath publishes the server below /market of another host, with each reverse
// proxy of the documentation. Without Caddy or HAProxy it skips them; CI has nginx.
func TestBelowPath(t *testing.T) {
	t.Parallel()
	const stripPath, http11 = "proxy_pass http://127.0.0.1:8080/;", "proxy_http_version 1.1;"
	for name, proxy := range map[string]reverseProxy{
		"nginx":                  {"nginx", "nginx", nil, nginxCommand},
		"nginx passes Host on":   {"nginx", "nginx", []string{http11, http11 + " proxy_set_header Host $http_host;"}, nginxCommand},
		"nginx passes path on":   {"nginx", "nginx", []string{stripPath, strings.Replace(stripPath, "/;", ";", 1)}, nginxCommand},
		"Caddy":                  {"caddy", "caddy", nil, caddyCommand},
		"Caddy removes the path": {"caddy", "caddy", []string{"handle /market/*", "handle_path /market/*"}, caddyCommand},
		"HAProxy":                {"haproxy", "haproxy", nil, haproxyCommand},
		"HAProxy removes the path": {
			"haproxy", "haproxy",
			[]string{"option forwardfor", "option forwardfor\n    http-request replace-path /market/(.*) /\\1"},
			haproxyCommand,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(proxy.program); err != nil && proxy.program != "nginx" {
				t.Skipf("%s is not installed", proxy.program)
			}
			server, base := publish(t, &proxy)
			via := server.At(base)
			checkTexts(t, via)
			checkLinks(t, via)
			checkStreams(t, via)
			checkPages(t, via)
		})
	}
}

// publish starts a server behind a proxy and returns it and its public URL.
func publish(t *testing.T, proxy *reverseProxy) (server *testserver.Server, base string) {
	t.Helper()
	program := testserver.RequireTool(t, proxy.program)
	config := testutil.CodeBlock(t, "../../../../docs/operations.md", "Reverse proxy", proxy.language)
	for i := 0; i < len(proxy.replace); i += 2 {
		if !strings.Contains(config, proxy.replace[i]) {
			t.Fatalf("the configuration lacks %q: %s", proxy.replace[i], config)
		}
	}
	address := unusedAddress(t)
	base = "http://" + address + "/market"
	server = testserver.Start(t, "AGENTMARKET_PUBLIC_URL="+base, "AGENTMARKET_TRUST_PROXIES=127.0.0.1/32")
	config = strings.NewReplacer(proxy.replace...).Replace(config)
	config = strings.ReplaceAll(config, "127.0.0.1:8080", strings.TrimPrefix(server.URL, "http://"))
	cmd, err := proxy.command(program, t.TempDir(), config, address)
	testutil.Must(t, err)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	testutil.Must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	testutil.Eventually(t, "the proxy accepts connections", func() bool {
		conn, err := net.Dial("tcp", address)
		return err == nil && conn.Close() == nil
	})
	return server, base
}

// unusedAddress returns an address that a proxy can listen on. Its port is below those
// that the system gives to clients, so that none of them takes it in the meantime.
func unusedAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		listener, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10_000+rand.IntN(20_000)))
		if err == nil {
			testutil.Must(t, listener.Close())
			return listener.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// nginxCommand runs nginx in the foreground, as one process.
func nginxCommand(program, dir, config, address string) (*exec.Cmd, error) {
	config = strings.Replace(config, "listen 443 ssl;", "listen "+address+";", 1)
	temporary := regexp.MustCompile(`\w+`).ReplaceAllString("client_body proxy fastcgi uwsgi scgi", "${0}_temp_path .;")
	config = "daemon off; master_process off; pid nginx.pid; error_log stderr; events {}\nhttp {\naccess_log off; " + temporary + "\n" + config + "}\n"
	file := filepath.Join(dir, "nginx.conf")
	err := os.WriteFile(file, []byte(config), 0o600)
	return exec.Command(program, "-p", dir, "-e", "stderr", "-c", file), err
}

// caddyCommand runs Caddy in the foreground.
func caddyCommand(program, dir, config, address string) (*exec.Cmd, error) {
	config = "{\n admin off\n auto_https off\n default_bind 127.0.0.1\n}\n" + strings.Replace(config, "market.example.com {", "http://"+address+" {", 1)
	file := filepath.Join(dir, "Caddyfile")
	err := os.WriteFile(file, []byte(config), 0o600)
	cmd := exec.Command(program, "run", "--adapter", "caddyfile", "--config", file)
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	return cmd, err
}

// haproxyCommand runs HAProxy in the foreground.
func haproxyCommand(program, dir, config, address string) (*exec.Cmd, error) {
	config = regexp.MustCompile(`bind :443 .*`).ReplaceAllString(config, "bind "+address)
	file := filepath.Join(dir, "haproxy.cfg")
	err := os.WriteFile(file, []byte("defaults\n    mode http\n"+config), 0o600)
	return exec.Command(program, "-db", "-f", file), err
}

// checkTexts checks that the links in all documents have the public URL and work.
func checkTexts(t *testing.T, via *testserver.Server) {
	t.Helper()
	var links []string
	for _, path := range []string{"/", "/skill.md", "/llms.txt", "/openapi.json"} {
		status, text := via.Do(http.MethodGet, path, "", "")
		found := regexp.MustCompile(`(?:http|ws)://127\.0\.0\.1[^\s"')>`+"`"+`]*`).FindAllString(text, -1)
		if status != http.StatusOK || len(found) == 0 {
			t.Errorf("%s: %d %s", path, status, text)
		}
		links = append(links, found...)
	}
	for _, link := range links {
		path, ok := strings.CutPrefix(link, via.URL)
		switch {
		case link == strings.Replace(via.URL, "http", "ws", 1)+"/graphql", ok && strings.Contains(path, "$"):
		case !ok:
			t.Errorf("a document has the link %s", link)
		case regexp.MustCompile(`^(/[a-z]+\.[a-z]+|/docs|/explorer|/api/(agents|tasks)(\?.*)?)$`).MatchString(path):
			if status, text := via.Do(http.MethodGet, path, "", ""); status != http.StatusOK {
				t.Errorf("%s: %d %s", link, status, text)
			}
		}
	}
	register := regexp.MustCompile(`(?s)# register\n(curl .+?)\n` + "```").FindStringSubmatch(get(t, via.URL+"/skill.md").body)
	if register == nil {
		t.Fatal("skill.md has no command to register")
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", register[1]).CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"api_key"`) {
		t.Errorf("%s: %v %.100s", register[1], err, out)
	}
}

// checkLinks follows the Link headers of a list, the Location of a hire, and redirects.
func checkLinks(t *testing.T, via *testserver.Server) {
	t.Helper()
	poster := via.Register("Poster", nil)
	worker := via.Register("Worker", map[string]any{"endpointUrl": "https://agent.example/"})
	var titles []string
	for _, title := range []string{"one", "two", "three"} {
		testutil.Must(t, postTask(via, poster.Key, title, 2, "listening"))
	}
	for address := via.URL + "/api/tasks?limit=1"; address != ""; {
		page := get(t, address)
		var list struct{ Data []struct{ Title string } }
		if err := json.Unmarshal([]byte(page.body), &list); err != nil || len(list.Data) != 1 {
			t.Fatalf("%s: %v %s", address, err, page.body)
		}
		titles = append(titles, list.Data[0].Title)
		link, _, _ := strings.Cut(strings.TrimPrefix(page.Header.Get("Link"), "<"), ">")
		if address = ""; link != "" {
			address = resolve(t, page.Request.URL, link)
		}
	}
	testutil.Equal(t, "the pages of the list", strings.Join(titles, " "), "three two one")

	hire := `{"agent_id":"` + worker.ID + `","task_description":"Work.","budget":10}`
	hired := send(t, http.MethodPost, via.URL+"/api/execute", hire, "X-API-Key", poster.Key, "Prefer", "respond-async")
	task := resolve(t, hired.Request.URL, hired.Header.Get("Location"))
	if got := send(t, http.MethodGet, task, "", "X-API-Key", poster.Key); hired.StatusCode != http.StatusAccepted || got.StatusCode != http.StatusOK || !strings.Contains(got.body, "Work.") {
		t.Errorf("the hire gets %d %s, and %s %d %s", hired.StatusCode, hired.body, task, got.StatusCode, got.body)
	}
	for _, path := range []string{"", "?a=b", "/docs/../docs", "//docs", "/docs//"} {
		if got := get(t, via.URL+path); got.StatusCode != http.StatusOK || !strings.HasPrefix(got.Request.URL.String(), via.URL+"/") {
			t.Errorf("%s leads to %s: %d", path, got.Request.URL, got.StatusCode)
		}
	}
}

// checkStreams subscribes over server-sent events and over WebSockets, and checks the
// origins of pages that do.
func checkStreams(t *testing.T, via *testserver.Server) {
	t.Helper()
	agent := via.Register("Listener", map[string]any{"capabilities": []string{"streaming"}})
	poster := via.Register("Poster", nil)
	page, err := url.Parse(via.URL)
	testutil.Must(t, err)
	own := "http://" + page.Host

	body := strings.NewReader(`{"query":"subscription { taskPosted(after: \"0\") { task { title } } }"}`)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, via.URL+"/graphql", body)
	testutil.Must(t, err)
	for name, value := range map[string]string{"Accept": "text/event-stream", "Content-Type": "application/json", "X-API-Key": agent.Key, "Origin": own} {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	testutil.Must(t, err)
	defer response.Body.Close() //nolint:errcheck // the test ends
	events := bufio.NewScanner(response.Body)
	for _, title := range []string{"Before", "After"} {
		testutil.Must(t, postTask(via, poster.Key, title, 2, "streaming"))
		for !strings.Contains(events.Text(), title) {
			if !events.Scan() {
				t.Fatalf("the event stream ends before %q: %d %v", title, response.StatusCode, events.Err())
			}
		}
	}

	for origin, want := range map[string]int{own: http.StatusSwitchingProtocols, "": http.StatusSwitchingProtocols, "http://evil.example": http.StatusForbidden} {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		conn, response, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(via.URL, "http")+"/graphql", header)
		if response == nil {
			t.Fatal(err)
		}
		testutil.Equal(t, "a WebSocket from "+origin, response.StatusCode, want)
		if err == nil {
			testutil.Must(t, conn.Close())
		}
		answer := send(t, http.MethodPost, via.URL+"/graphql", `{"query":"{ __typename }"}`, "Origin", origin)
		testutil.Equal(t, "a request from "+origin, answer.StatusCode == http.StatusOK, want != http.StatusForbidden)
	}
	if conn := via.SubscribeWallet("graphql-transport-ws", agent.Key, false); conn != nil {
		testutil.Must(t, conn.Close())
	}
}

// checkPages uses the pages in a browser.
func checkPages(t *testing.T, via *testserver.Server) {
	t.Helper()
	agent := via.Register("Reader", map[string]any{"capabilities": []string{"reading"}})
	tab := openPage(t, via.URL+"/")
	tab.WaitFor(`document.querySelector('h1')?.innerText === 'AgentMarket'`)
	var links []string
	testutil.Must(t, json.Unmarshal([]byte(tab.Evaluate(`JSON.stringify([...document.links].map((link) => link.href))`)), &links))
	for _, link := range links {
		if got := get(t, link); got.StatusCode != http.StatusOK || !strings.HasPrefix(link, via.URL+"/") {
			t.Errorf("the page has the link %s: %d", link, got.StatusCode)
		}
	}
	for _, slash := range []string{"", "/"} {
		tab.Call("Page.navigate", map[string]any{"url": via.URL + "/docs" + slash}, nil)
		waitForReference(tab)
		tab.Evaluate(`localStorage.clear()`) // the explorer would open the last query instead of the examples
		tryRoute(tab, "get-/api/agents", `"name": "Reader"`)
		tab.Call("Page.navigate", map[string]any{"url": via.URL + "/explorer" + slash}, nil)
		waitForExplorer(tab)
		if slash == "" { // the tab keeps the key
			enterAPIKey(tab, agent.Key)
		}
		runInExplorer(tab, `{ viewer { agent { name } } }`)
		tab.WaitFor(explorerResult + `.includes('"name": "Reader"')`)
		runInExplorer(tab, `subscription { walletChanged(after: "0") { wallet { balance } } }`)
		tab.WaitFor(explorerResult + `.includes('"balance": 100')`)
	}
	checkRequests(t, tab, via.URL, "/docs/icon.svg", "/docs/rapidoc.js", "/openapi.json", "/api/agents", "/explorer/graphiql.js", "/graphql")
}

// exchange is a response with its body.
type exchange struct {
	*http.Response

	body string
}

func get(t *testing.T, address string) exchange {
	t.Helper()
	return send(t, http.MethodGet, address, "")
}

// send sends a request with a JSON body and reads the response. Headers are pairs of name
// and value.
func send(t *testing.T, method, address, body string, headers ...string) exchange {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	testutil.Must(t, err)
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	testutil.Must(t, err)
	text, err := io.ReadAll(response.Body)
	testutil.Must(t, errors.Join(err, response.Body.Close()))
	return exchange{response, string(text)}
}

// resolve resolves a reference in a response, as browsers do.
func resolve(t *testing.T, base *url.URL, reference string) string {
	t.Helper()
	u, err := base.Parse(reference)
	testutil.Must(t, err)
	return u.String()
}

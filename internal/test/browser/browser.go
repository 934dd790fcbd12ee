// Package browser opens pages in a headless Chromium for tests. No name resolves in it, so
// a page must load everything from the test's own servers.
package browser

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// Tab is one page in a headless Chromium, driven over the DevTools protocol.
type Tab struct {
	t       testing.TB
	ctx     context.Context //nolint:containedctx // a tab lives as long as its test
	conn    *websocket.Conn
	session string

	mu            sync.Mutex
	nextID        int
	replies       map[int]chan reply
	requests      []string
	consoleErrors []string
}

type reply struct {
	Result json.RawMessage
	Error  *struct{ Message string }
}

// testTimeout bounds everything that a test does in a browser.
const testTimeout = 3 * time.Minute

// Open opens address in a new browser with an empty profile and closes it when the test
// ends. Without Chromium it skips the test; in CI it fails it.
func Open(t testing.TB, address string) *Tab {
	t.Helper()
	binary, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("chromium is not installed; this test must run in CI")
		}
		t.Skip("no browser: install chromium to test the pages (Debian: apt-get install chromium)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	browser := exec.CommandContext(ctx, binary, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
		"--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-component-update",
		"--disable-sync", "--user-data-dir="+t.TempDir(), "--remote-debugging-port=0",
		"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "about:blank")
	stderr, err := browser.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := browser.Start(); err != nil {
		t.Fatal(err)
	}
	var endpoint string
	announced := regexp.MustCompile(`^DevTools listening on (ws://\S+)`)
	lines := bufio.NewScanner(stderr)
	for endpoint == "" && lines.Scan() {
		if found := announced.FindStringSubmatch(lines.Text()); found != nil {
			endpoint = found[1]
		}
	}
	if endpoint == "" {
		t.Fatalf("chromium did not start: %v", browser.Wait())
	}
	conn, response, err := websocket.DefaultDialer.DialContext(ctx, endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()

	page := &Tab{t: t, ctx: ctx, conn: conn, replies: map[int]chan reply{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		page.readMessages()
	}()
	t.Cleanup(func() { // runs before the profile's folder is removed
		if ctx.Err() == nil {
			page.session = ""
			page.Call("Browser.close", nil, nil)
		}
		for lines.Scan() { // until the browser and its helpers let go of the pipe
		}
		_ = browser.Wait()
		_ = conn.Close()
		<-done
	})

	var target struct{ TargetID string }
	page.Call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	page.Call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	page.session = attached.SessionID
	for _, domain := range []string{"Network", "Page", "Runtime", "Log"} {
		page.Call(domain+".enable", nil, nil)
	}
	page.Call("Page.navigate", map[string]any{"url": address}, nil)
	return page
}

// Call sends one command, waits for its reply and decodes it into result.
func (p *Tab) Call(method string, params map[string]any, result any) {
	p.t.Helper()
	answered := make(chan reply, 1)
	p.mu.Lock()
	p.nextID++
	p.replies[p.nextID] = answered
	message := map[string]any{"id": p.nextID, "method": method, "params": params}
	if params == nil {
		message["params"] = map[string]any{}
	}
	if p.session != "" {
		message["sessionId"] = p.session
	}
	err := p.conn.WriteJSON(message)
	p.mu.Unlock()
	if err != nil {
		p.t.Fatalf("%s: %v", method, err)
	}
	select {
	case got := <-answered:
		if got.Error != nil {
			p.t.Fatalf("%s: %s", method, got.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(got.Result, result); err != nil {
				p.t.Fatalf("%s: %v", method, err)
			}
		}
	case <-p.ctx.Done():
		_, errors := p.RequestsAndErrors()
		p.t.Fatalf("%s %v: %v; the browser logged: %v", method, params, p.ctx.Err(), errors)
	}
}

// Evaluate runs an expression in the page and returns its value as text.
func (p *Tab) Evaluate(expression string) string {
	p.t.Helper()
	var got struct {
		Result           struct{ Value any }
		ExceptionDetails *struct{ Exception struct{ Description string } }
	}
	p.Call("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}, &got)
	if got.ExceptionDetails != nil {
		p.t.Fatalf("%s: %s", expression, got.ExceptionDetails.Exception.Description)
	}
	return fmt.Sprint(got.Result.Value)
}

// WaitFor returns once the expression is true in the page.
func (p *Tab) WaitFor(expression string) {
	p.t.Helper()
	p.Evaluate(`new Promise((done) => {
		const look = () => (` + expression + `) ? done(true) : setTimeout(look, 10);
		look();
	})`)
}

// RequestsAndErrors returns the address of every request of the page so far, and every
// error in the console or the browser's log.
func (p *Tab) RequestsAndErrors() (requests, errors []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append(requests, p.requests...), append(errors, p.consoleErrors...)
}

// readMessages handles replies and events until the connection closes.
func (p *Tab) readMessages() {
	for {
		var message struct {
			ID int
			reply
			Method string
			Params struct {
				URL              string                                           // Network.webSocketCreated
				Request          struct{ URL string }                             // Network.requestWillBeSent
				Type             string                                           // Runtime.consoleAPICalled
				Args             []struct{ Value, Description any }               //
				ExceptionDetails struct{ Exception struct{ Description string } } // Runtime.exceptionThrown
				Entry            struct{ Level, Text, URL string }                // Log.entryAdded
			}
		}
		if err := p.conn.ReadJSON(&message); err != nil {
			return
		}
		p.mu.Lock()
		params := message.Params
		switch message.Method {
		case "":
			p.replies[message.ID] <- message.reply
		case "Network.requestWillBeSent":
			p.requests = append(p.requests, params.Request.URL)
		case "Network.webSocketCreated":
			p.requests = append(p.requests, params.URL)
		case "Runtime.exceptionThrown":
			p.consoleErrors = append(p.consoleErrors, params.ExceptionDetails.Exception.Description)
		case "Runtime.consoleAPICalled":
			if params.Type == "error" {
				p.consoleErrors = append(p.consoleErrors, strings.TrimSpace(fmt.Sprint(params.Args)))
			}
		case "Log.entryAdded":
			if params.Entry.Level == "error" {
				p.consoleErrors = append(p.consoleErrors, params.Entry.Text+" "+params.Entry.URL)
			}
		}
		p.mu.Unlock()
	}
}

package config_test

import (
	"net"
	"testing"

	"agentmarket.space/server/internal/config"
)

// TestNormalizeOrigin checks that all spellings of an origin become the one that
// browsers send, and that what no browser sends is an error.
func TestNormalizeOrigin(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://example.com":      "https://example.com",
		"HTTPS://Example.COM:443":  "https://example.com",
		"http://example.com:80":    "http://example.com",
		"http://example.com:443":   "http://example.com:443",
		"http://localhost:3000":    "http://localhost:3000",
		"http://[2001:DB8::0:1]":   "http://[2001:db8::1]",
		"http://[::1]:80":          "http://[::1]",
		"https://example.com:":     "https://example.com",
		"chrome-extension://abcde": "chrome-extension://abcde",
		"":                         "", "null": "", "*": "", "https://": "", "example.com": "", "localhost:3000": "",
		"https://*.example.com": "", "https://*": "", "https://example.com/": "", "https://example.com/app": "", "https://example.com?a=b": "",
		"https://example.com?": "", "https://example.com#": "", "https://user@example.com": "", "https://ex ample.com": "",
		"https://exämple.com": "", "https://example..com": "", "https://example.com:0": "", "https://example.com:99999": "", "https://:443": "",
	} {
		if got, err := config.NormalizeOrigin(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
}

// TestBaseURL checks the base URLs of public URLs and listen addresses. A URL to which
// no path can be appended, or that a shell would not take as one word, is an error.
func TestBaseURL(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ public, addr, want string }{
		{"https://market.example.com", "", "https://market.example.com"},
		{"https://market.example.com/market/", "", "https://market.example.com/market"},
		{"https://market.example.com/a/b//", "", "https://market.example.com/a/b"},
		{"Http://Market.Example.com:8080", "", "http://market.example.com:8080"},
		{"https://market.example.com:443/", "", "https://market.example.com"},
		{"http://[::1]:8080/m", "", "http://[::1]:8080/m"},
		{"", "[fe80::1%eth0]:8080", "http://[fe80::1%25eth0]:8080"},
		{"", "[::ffff:0.0.0.0]:8080", "http://127.0.0.1:8080"},
		{"https://market.example.com?a=b", "", ""},
		{"https://market.example.com/?", "", ""},
		{"https://market.example.com/#a", "", ""},
		{"https://market.example.com/#", "", ""},
		{"https://user@market.example.com", "", ""},
		{"https://user:secret@market.example.com", "", ""},
		{"https://market.example.com/a//b", "", ""},
		{"https://market.example.com/../b", "", ""},
		{"https://market.example.com/a b", "", ""},
		{"https://market.example.com/%61", "", ""},
		{"https://market.example.com/$(id)", "", ""},
		{"https://*.example.com", "", ""},
		{"https://", "", ""},
		{"https:market.example.com", "", ""},
		{"ftp://market.example.com", "", ""},
		{"market.example.com", "", ""},
		{"/market", "", ""},
		{"https://märkt.example.com", "", ""},
		{"https://market.example.com:0", "", ""},
	} {
		if got, err := config.BaseURL(row.public, row.addr); got != row.want || (err == nil) != (row.want != "") {
			t.Errorf("%q: got %q, %v", row.public+row.addr, got, err)
		}
	}
}

// TestBaseURL_reachable checks that a server that listens on all addresses names one at
// which it can be called.
func TestBaseURL_reachable(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{":0", "0.0.0.0:0", "127.0.0.1:0", "localhost:0"} {
		listener, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c := config.Config{Addr: addr}
		c.Complete(listener.Addr())
		conn, err := net.Dial("tcp", c.PublicURL[len("http://"):])
		if err != nil {
			t.Errorf("%s: %s cannot be called: %v", addr, c.PublicURL, err)
		} else if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
	}
}

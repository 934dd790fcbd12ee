package outbound

import (
	"net"
	"net/url"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/trust/trusttest"
	"agentmarket.space/server/models"
)

// TestCheckURL checks rejected URLs and the normalized form of accepted ones.
func TestCheckURL(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	for _, invalid := range []string{
		"", "bot", "//bot.example.com", "http://bot.example.com", "ftp://bot.example.com", "https://", "https:///path", "https:bot.example.com", "javascript:alert(1)",
		"https://user@bot.example.com", "https://user:pass@bot.example.com", "https://bot.example.com:80", "https://bot.example.com:8443", "https://bot.example.com:0",
		"https://bot.example.com:99999", "https://bot", "https://localhost", "https://x.localhost/", "https://printer.local", "https://db.internal", "https://a..b.com",
		"https://0x7f.1", "https://2130706433", "https://017700000001", "https://127.1", "https://0x7f000001/", "https://[::1]/", "https://[fe80::1%25eth0]/",
		"https://bot.example.com/\x00", "https://bot.example.com/ a", "https://bot.example.com\n", "https://\xff.com", "https://" + strings.Repeat("a", 3000) + ".com",
	} {
		if got, err := c.CheckURL("webhook_url", invalid); models.CodeOf(err) != models.InvalidInput || err == nil {
			t.Errorf("%q was accepted as %q (%v)", invalid, got, err)
		}
	}
	for _, address := range privateAddresses() {
		host := address
		if strings.Contains(address, ":") {
			host = "[" + address + "]"
		}
		if got, err := c.CheckURL("webhook_url", "https://"+host+"/"); err == nil {
			t.Errorf("%s was accepted as %q", address, got)
		}
	}
	for raw, want := range map[string]string{
		"https://bot.example.com/hook":           "https://bot.example.com/hook",
		"HTTPS://Bot.Example.COM/Hook?a=B#there": "https://bot.example.com/Hook?a=B",
		"https://bot.example.com:443/":           "https://bot.example.com:443/",
		"https://1.1.1.1/":                       "https://1.1.1.1/",
		"https://bücher.example/":                "https://b%C3%BCcher.example/",
	} {
		if got, err := c.CheckURL("webhook_url", raw); err != nil || got != want {
			t.Errorf("%s: got %q (%v), want %q", raw, got, err, want)
		}
	}
}

// FuzzCheckURL checks that every accepted URL is an https URL with a host, and that
// normalizing it again does not change it.
func FuzzCheckURL(f *testing.F) {
	for _, seed := range []string{"https://bot.example.com/hook", "https://1.1.1.1:443/?q", "https://[2606:4700::1111]/", "https://a.b:443#x", "https://ex%41mple.com"} {
		f.Add(seed)
	}
	for _, address := range privateAddresses() {
		f.Add("https://" + net.JoinHostPort(address, "443") + "/")
	}
	c, accepted, rejected := New(Options{}), 0, 0
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := c.CheckURL("url", raw)
		if err != nil {
			rejected++
			return
		}
		accepted++
		u, err := url.Parse(got)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
			t.Errorf("%q: got %q (%v)", raw, got, err)
		}
		if second, err := c.CheckURL("url", got); err != nil || second != got {
			t.Errorf("%q: got %q and then %q (%v)", raw, got, second, err)
		}
	})
	trusttest.Report(f, "urls", "%d URLs: %d refused, the others can be called, over TLS and at a host", accepted+rejected, rejected)
}

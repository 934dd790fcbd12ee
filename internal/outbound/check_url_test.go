package outbound

import (
	"net"
	"net/url"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/trust/trusttest"
	"agentmarket.space/server/models"
)

// TestCheckURL has the early no.
func TestCheckURL(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	for _, bad := range []string{
		"", "bot", "//bot.example.com", "http://bot.example.com", "ftp://bot.example.com", "https://", "https:///path", "https:bot.example.com", "javascript:alert(1)",
		"https://user@bot.example.com", "https://user:pass@bot.example.com", "https://bot.example.com:80", "https://bot.example.com:8443", "https://bot.example.com:0",
		"https://bot.example.com:99999", "https://bot", "https://localhost", "https://x.localhost/", "https://printer.local", "https://db.internal", "https://a..b.com",
		"https://0x7f.1", "https://2130706433", "https://017700000001", "https://127.1", "https://0x7f000001/", "https://[::1]/", "https://[fe80::1%25eth0]/",
		"https://bot.example.com/\x00", "https://bot.example.com/ a", "https://bot.example.com\n", "https://\xff.com", "https://" + strings.Repeat("a", 3000) + ".com",
	} {
		if got, err := c.CheckURL("webhook_url", bad); models.CodeOf(err) != models.InvalidInput || err == nil {
			t.Errorf("%q was taken as %q (%v)", bad, got, err)
		}
	}
	for _, address := range privateAddresses() {
		host := address
		if strings.Contains(address, ":") {
			host = "[" + address + "]"
		}
		if got, err := c.CheckURL("webhook_url", "https://"+host+"/"); err == nil {
			t.Errorf("%s was taken as %q", address, got)
		}
	}
	for given, want := range map[string]string{
		"https://bot.example.com/hook":           "https://bot.example.com/hook",
		"HTTPS://Bot.Example.COM/Hook?a=B#there": "https://bot.example.com/Hook?a=B",
		"https://bot.example.com:443/":           "https://bot.example.com:443/",
		"https://1.1.1.1/":                       "https://1.1.1.1/",
		"https://bücher.example/":                "https://b%C3%BCcher.example/",
	} {
		if got, err := c.CheckURL("webhook_url", given); err != nil || got != want {
			t.Errorf("%s became %q (%v), want %q", given, got, err, want)
		}
	}
}

// FuzzCheckURL: whatever is taken can be called, with TLS, at a host, and stays
// what it is when it is checked again.
func FuzzCheckURL(f *testing.F) {
	for _, seed := range []string{"https://bot.example.com/hook", "https://1.1.1.1:443/?q", "https://[2606:4700::1111]/", "https://a.b:443#x", "https://ex%41mple.com"} {
		f.Add(seed)
	}
	for _, address := range privateAddresses() {
		f.Add("https://" + net.JoinHostPort(address, "443") + "/")
	}
	c, taken, refused := New(Options{}), 0, 0
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := c.CheckURL("url", raw)
		if err != nil {
			refused++
			return
		}
		taken++
		u, err := url.Parse(got)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
			t.Errorf("%q became %q (%v)", raw, got, err)
		}
		if again, err := c.CheckURL("url", got); err != nil || again != got {
			t.Errorf("%q became %q and then %q (%v)", raw, got, again, err)
		}
	})
	trusttest.Report(f, "urls", "%d URLs: %d refused, the others can be called, over TLS and at a host", taken+refused, refused)
}

package outbound

import (
	"context"
	"net/netip"
	"net/url"
	"time"

	"code.dny.dev/ssrf"

	"agentmarket.space/server/models"
)

// lookupTimeout is how long a name may take to be looked up when an address is set.
const lookupTimeout = 2 * time.Second

// CheckHost looks the host of an address up that passed [Client.CheckURL], and
// returns INVALID_INPUT about the field when it leads to an address that may not be
// called: who sets it hears of it now, and not from a failed attempt. A name that is
// not found now passes. It is a courtesy; what counts is the guard at dialling, where
// the name may lead elsewhere.
func (c *Client) CheckHost(ctx context.Context, field, raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return models.Invalid(field, "must be an address like https://example.com/path")
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := c.resolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return nil // it may be found when it is called
	}
	for _, ip := range found {
		if !c.isAllowed(ip) && !isPublic(ip) {
			return models.Invalid(field, "must be at a public host: its name leads to an address that is not public")
		}
	}
	return nil
}

// isPublic reports whether an address is public.
func isPublic(ip netip.Addr) bool {
	network := "tcp6"
	if ip = ip.Unmap(); ip.Is4() {
		network = "tcp4"
	}
	return ip.Zone() == "" && ssrf.New(ssrf.WithAnyPort()).Safe(network, netip.AddrPortFrom(ip, 443).String(), nil) == nil
}

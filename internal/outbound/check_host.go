package outbound

import (
	"context"
	"net/netip"
	"net/url"
	"time"

	"code.dny.dev/ssrf"

	"agentmarket.space/server/models"
)

// lookupTimeout limits the lookup of a host name in CheckHost.
const lookupTimeout = 2 * time.Second

// CheckHost looks up the host of a URL that passed [Client.CheckURL]. It returns
// INVALID_INPUT for field when the host has an address that must not be called, so
// the caller gets the error now instead of from a failed request. An unknown host
// name passes. The check at dial time is the authoritative one: the name may resolve
// to another address then.
func (c *Client) CheckHost(ctx context.Context, field, raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return models.FieldErrorf(field, "must be a URL like https://example.com/path")
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addresses, err := c.resolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return nil // it may resolve later
	}
	for _, ip := range addresses {
		if !c.isAllowed(ip) && !isPublic(ip) {
			return models.FieldErrorf(field, "must have a public host: its name resolves to an address that is not public")
		}
	}
	return nil
}

// isPublic reports whether ip is a public address.
func isPublic(ip netip.Addr) bool {
	network := "tcp6"
	if ip = ip.Unmap(); ip.Is4() {
		network = "tcp4"
	}
	return ip.Zone() == "" && ssrf.New(ssrf.WithAnyPort()).Safe(network, netip.AddrPortFrom(ip, 443).String(), nil) == nil
}

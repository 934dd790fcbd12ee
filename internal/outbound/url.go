package outbound

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"agentmarket.space/server/models"
)

const maxURLLength = 2048

// CheckURL returns an address in the form it is kept in, or INVALID_INPUT about
// the field when it is not https or can be seen not to be public. It is an
// early, friendly no: names are not looked up here, see [Client.CheckName], and what
// counts is the guard at dialling.
func (c *Client) CheckURL(field, raw string) (string, error) {
	switch {
	case len(raw) > maxURLLength:
		return "", models.Invalid(field, "must have at most %d characters", maxURLLength)
	case !utf8.ValidString(raw) || strings.ContainsFunc(raw, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }):
		return "", models.Invalid(field, "must not have blanks or control characters")
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return "", models.Invalid(field, "must be an address like https://example.com/path")
	case !strings.EqualFold(u.Scheme, "https"):
		return "", models.Invalid(field, "must start with https://")
	case u.User != nil:
		return "", models.Invalid(field, "must not hold a user or password")
	}
	u.Scheme, u.Host, u.Fragment, u.RawFragment = "https", strings.ToLower(u.Host), "", ""
	private := c.isAllowedHost(u.Hostname())
	if !private && !isPublicHost(u.Hostname()) {
		return "", models.Invalid(field, "must be at a public host")
	}
	if port := u.Port(); port != "" && !private && len(c.networks) == 0 {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || !slices.Contains(c.ports, uint16(n)) {
			return "", models.Invalid(field, "must use one of the ports %v", c.ports)
		}
	}
	return u.String(), nil
}

// isAllowedHost reports whether a host may be called though it is private.
func (c *Client) isAllowedHost(host string) bool {
	if host == "localhost" {
		return c.isAllowed(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && c.isAllowed(ip)
}

// isPublicHost reports whether a host could be public: a public address, or a
// name with a dot that is not known to be private. A name whose last label
// begins with a digit is an address in an old notation.
func isPublicHost(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return isPublic(ip)
	}
	name := strings.TrimSuffix(host, ".")
	labels := strings.Split(name, ".")
	last := labels[len(labels)-1]
	if len(labels) < 2 || slices.Contains(labels, "") || last[0] >= '0' && last[0] <= '9' {
		return false
	}
	return !slices.Contains([]string{"localhost", "local", "internal", "intranet", "lan", "home", "corp", "arpa", "onion", "test", "invalid"}, last)
}

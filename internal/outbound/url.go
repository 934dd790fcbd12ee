package outbound

import (
	"fmt"
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

// CheckURL returns raw in normalized form. It returns INVALID_INPUT for field when
// raw is not an https URL or its host is visibly not public. It does not look up host
// names; [Client.CheckHost] does. The check at dial time is the authoritative one.
func (c *Client) CheckURL(field, raw string) (string, error) {
	switch {
	case len(raw) > maxURLLength:
		return "", models.FieldErrorf(field, "must have at most %d characters", maxURLLength)
	case !utf8.ValidString(raw) || strings.ContainsFunc(raw, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }):
		return "", models.FieldErrorf(field, "must not contain spaces or control characters")
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return "", models.FieldErrorf(field, "must be a URL like https://example.com/path")
	case !strings.EqualFold(u.Scheme, "https"):
		return "", models.FieldErrorf(field, "must start with https://")
	case u.User != nil:
		return "", models.FieldErrorf(field, "must not contain a user name or password")
	}
	u.Scheme, u.Host, u.Fragment, u.RawFragment = "https", strings.ToLower(u.Host), "", ""
	u.RawPath = strings.TrimPrefix(encodeURL("://"+u.RawPath), "://") // otherwise String decodes its escaped slashes
	allowed := c.isAllowedHost(u.Hostname())
	if !allowed && !isPublicHost(u.Hostname()) {
		return "", models.FieldErrorf(field, "must have a public host")
	}
	if port := u.Port(); port != "" && !allowed && len(c.networks) == 0 {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || !slices.Contains(c.ports, uint16(n)) {
			return "", models.FieldErrorf(field, "must use one of the ports %v", c.ports)
		}
	}
	return u.String(), nil
}

// isAllowedHost reports whether host is an address in one of the allowed private
// networks; localhost is 127.0.0.1.
func (c *Client) isAllowedHost(host string) bool {
	if host == "localhost" {
		return c.isAllowed(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && c.isAllowed(ip)
}

// isPublicHost reports whether host can be public: a public address, or a name with a
// dot that is not under a private top-level domain. A name whose last label starts
// with a digit is a legacy notation of an IPv4 address and is not public.
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

// encodeURL returns a URL with the bytes of its path and query percent-encoded that a
// request must not contain. It encodes nothing twice: an existing escape stays, also one
// of a slash. The transport encodes the host.
func encodeURL(raw string) string {
	start := strings.Index(raw, "://") + len("://")
	if start < len("://") {
		return raw
	}
	end := strings.IndexAny(raw[start:], "/?")
	if end < 0 {
		return raw
	}
	start += end
	query := start + strings.IndexByte(raw[start:], '?') // start-1 without one
	var b strings.Builder
	b.WriteString(raw[:start])
	for i := start; i < len(raw); i++ {
		inQuery := query >= start && i > query
		switch c := raw[i]; {
		case c <= ' ', c >= 0x7f, strings.IndexByte("\"<>\\^`{|}", c) >= 0, c == '%' && inQuery && !isEscape(raw[i:]):
			fmt.Fprintf(&b, "%%%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// isEscape reports whether text starts with a percent-encoded byte.
func isEscape(text string) bool {
	if len(text) < len("%00") {
		return false
	}
	_, err := strconv.ParseUint(text[1:3], 16, 8)
	return err == nil
}

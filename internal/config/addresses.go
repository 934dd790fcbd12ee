package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// urlPath matches the path of a public URL. It appears in shell commands and in the
// routes of proxies, so it has only characters that never need an escape.
var urlPath = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)*/*$`)

// hostName matches a host name in lower case.
var hostName = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?$`)

// NormalizeOrigin returns a web origin as browsers send it: scheme://host, and the port
// unless it is the default one, in lower case. It returns an error for text that no
// browser sends, such as an origin with a path or a wildcard.
func NormalizeOrigin(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return "", errors.New("must be an origin like https://example.com")
	}
	if u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(text, "#") {
		return "", errors.New("must only have a scheme, a host and a port, like https://example.com")
	}
	host, err := normalizeHost(u)
	if err != nil {
		return "", err
	}
	return u.Scheme + "://" + host, nil
}

// BaseURL returns the base URL of a server without a trailing slash: public in a
// normal form, or if it is empty, a URL of this machine for a server that listens on
// addr. It returns an error for a URL to which no path can be appended.
func BaseURL(public, addr string) (string, error) {
	if public != "" {
		return normalizeBaseURL(public)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.Unmap().IsUnspecified() {
		host = "127.0.0.1" // it listens on all addresses, this one included
	}
	return normalizeBaseURL((&url.URL{Scheme: "http", Host: net.JoinHostPort(host, port)}).String())
}

// normalizeBaseURL returns a URL with its scheme and host in lower case, and without a
// default port and trailing slashes.
func normalizeBaseURL(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return "", errors.New("must be a URL like https://example.com or https://example.com/market")
	case u.User != nil:
		return "", errors.New("must not have a user name or a password")
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return "", errors.New("must not have a query or a fragment")
	}
	base := strings.TrimRight(u.Path, "/")
	if !urlPath.MatchString(u.EscapedPath()) || base != "" && path.Clean(base) != base {
		return "", errors.New("must have a path of letters, digits, '-', '.', '_' and '~' between single slashes")
	}
	host, err := normalizeHost(u)
	if err != nil {
		return "", err
	}
	return u.Scheme + "://" + host + base, nil
}

// normalizeHost returns the host of a URL, and its port unless it is the default one.
func normalizeHost(u *url.URL) (string, error) {
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if ip, err := netip.ParseAddr(host); err == nil {
		if host = ip.String(); ip.Is6() {
			host = "[" + strings.ReplaceAll(host, "%", "%25") + "]"
		}
	} else if !hostName.MatchString(host) {
		return "", errors.New("must have a host without wildcards, in ASCII (use the xn-- form of other names)")
	}
	if port == "" || port == map[string]string{"http": "80", "https": "443"}[u.Scheme] {
		return host, nil
	}
	if !isPort(port) || port == "0" {
		return "", errors.New("must have a port from 1 to 65535")
	}
	return host + ":" + port, nil
}

// isPort reports whether text is a port number without leading zeros.
func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && strconv.FormatUint(n, 10) == text
}

// checkAddr returns an error unless text is an address to listen on. The port is a
// number, because it appears in URLs.
func checkAddr(text string) error {
	if text == "" {
		return errors.New("must not be empty")
	}
	if _, port, err := net.SplitHostPort(text); err != nil || !isPort(port) {
		return errors.New("must be a host and a port number, like 127.0.0.1:8080 or :8080")
	}
	return nil
}

// checkNetworks returns an error for networks that no address is in.
func checkNetworks(networks []netip.Prefix) error {
	for _, network := range networks {
		if network.Addr().Is4In6() {
			return fmt.Errorf("%s contains no address: write the IPv4 network, like 10.0.0.0/8", network)
		}
	}
	return nil
}

// checkServiceURL returns an error unless text is empty or a URL that needs neither
// credentials nor a query.
func checkServiceURL(text, example string) error {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return nil
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("%q is not a URL like %s", maskCredentials(text), example)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("must not have credentials, a query or a fragment")
	default:
		return nil
	}
}

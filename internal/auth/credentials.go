package auth

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"agentmarket.space/server/models"
)

// Names of credentials, in headers and in the payload of a socket.
const (
	apiKeyName        = "X-API-Key" //nolint:gosec // the name of a header
	payloadKeyName    = "apiKey"
	authorizationName = "Authorization"
)

// AuthenticateHeader returns the agent whose API key is in the headers of a request; see
// [KeyFromHeader]. ok is false for an anonymous request.
func (k *Keys) AuthenticateHeader(ctx context.Context, h http.Header) (actor Actor, ok bool, err error) {
	key, err := KeyFromHeader(h)
	return k.authenticateOptional(ctx, key, err)
}

// AuthenticatePayload returns the agent whose API key is in the payload of connection_init;
// see [KeyFromPayload]. ok is false for an anonymous socket.
func (k *Keys) AuthenticatePayload(ctx context.Context, payload map[string]any) (actor Actor, ok bool, err error) {
	key, err := KeyFromPayload(payload)
	return k.authenticateOptional(ctx, key, err)
}

// authenticateOptional authenticates a key unless it is empty. err is the error of reading
// it from the request.
func (k *Keys) authenticateOptional(ctx context.Context, key string, err error) (Actor, bool, error) {
	if err != nil {
		if k.hooks.OnUnknown != nil {
			k.hooks.OnUnknown(ctx)
		}
		return Actor{}, false, err
	}
	if key == "" {
		return Actor{}, false, nil
	}
	actor, err := k.Authenticate(ctx, key)
	return actor, err == nil, err
}

// KeyFromHeader returns the key in the headers of a request: the value of X-API-Key, or that
// of Authorization with the scheme Bearer in any case. It returns "" if the request has
// neither. It returns UNAUTHENTICATED for a credential that is not a key, such as an empty
// one or another scheme, and for two different keys: a caller that sends a credential must
// not be served as an anonymous one.
func KeyFromHeader(h http.Header) (string, error) {
	var c credentials
	for _, value := range h.Values(apiKeyName) {
		c.addKey(apiKeyName, value)
	}
	for _, value := range h.Values(authorizationName) {
		c.addBearer(value)
	}
	return c.key, c.err
}

// KeyFromPayload returns the key in the payload of connection_init: apiKey, X-API-Key, or
// Authorization with the scheme Bearer, in any case, also in an object named headers. It
// returns "" and UNAUTHENTICATED like [KeyFromHeader]. A value that is not text is not a key.
func KeyFromPayload(payload map[string]any) (string, error) {
	var c credentials
	c.addPayload(payload)
	for name, value := range payload {
		if nested, isObject := value.(map[string]any); isObject && strings.EqualFold(name, "headers") {
			c.addPayload(nested)
		}
	}
	return c.key, c.err
}

// credentials collects the credentials of a request.
type credentials struct {
	key string
	err error // the first one
}

func (c *credentials) addPayload(payload map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(payload)) {
		isKey := strings.EqualFold(name, payloadKeyName) || strings.EqualFold(name, apiKeyName)
		if !isKey && !strings.EqualFold(name, authorizationName) {
			continue
		}
		text, isText := payload[name].(string)
		switch {
		case !isText:
			c.reject("%s must be a string", name)
		case isKey:
			c.addKey(name, strings.TrimSpace(text))
		default:
			c.addBearer(strings.TrimSpace(text))
		}
	}
}

func (c *credentials) addBearer(value string) {
	scheme, key, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		c.reject("%s must be 'Bearer' followed by an API key", authorizationName)
		return
	}
	c.addKey(authorizationName, strings.TrimLeft(key, " "))
}

func (c *credentials) addKey(name, key string) {
	switch {
	case key == "":
		c.reject("%s has no API key: send a key, or leave %[1]s out", name)
	case c.key != "" && c.key != key:
		c.reject("the request has two different API keys: send one")
	default:
		c.key = key
	}
}

func (c *credentials) reject(format string, args ...any) {
	if c.err == nil {
		c.err = models.Errorf(models.Unauthenticated, format, args...)
	}
}

package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Health checks the readiness of a server, for container and service managers.
type Health struct {
	URL string `default:"http://127.0.0.1:8080" env:"AGENTMARKET_URL" help:"URL of the server."`
}

const healthTimeout = 3 * time.Second

// Validate checks the URL.
func (c *Health) Validate() error { return checkURL(c.URL, "http://127.0.0.1:8080") }

// Run prints "ready", or returns an error if the server is not ready.
func (c *Health) Run(ctx context.Context, to Streams) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.URL, "/")+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{}).Do(request)
	if err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	defer response.Body.Close() //nolint:errcheck // only read
	body, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s: %s", response.Status, SanitizeLine(string(body)))
	}
	_, err = fmt.Fprintln(to.Out, "ready")
	return err
}

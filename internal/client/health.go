package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Health asks a server whether it is ready, for container and service managers.
type Health struct {
	URL string `default:"http://127.0.0.1:8080" env:"AGENTMARKET_URL" help:"Address of the server."`
}

const healthTimeout = 3 * time.Second

// Validate refuses an address that nobody can be asked at.
func (c *Health) Validate() error { return checkURL(c.URL, "http://127.0.0.1:8080") }

// Run fails unless the server is ready.
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
	defer response.Body.Close() //nolint:errcheck // nothing is lost with it
	said, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s: %s", response.Status, SanitizeLine(string(said)))
	}
	_, err = fmt.Fprintln(to.Out, "ready")
	return err
}

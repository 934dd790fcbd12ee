package cli

import (
	"fmt"

	"agentmarket.space/server/compat"
	"agentmarket.space/server/graph"
	"agentmarket.space/server/internal/client"
	"agentmarket.space/server/internal/config"
)

type schemaCommand struct{}

// Run prints the schema.graphqls that the program was built with.
func (*schemaCommand) Run(to client.Streams) error {
	_, err := fmt.Fprint(to.Out, graph.Schema())
	return err
}

type openAPICommand struct {
	config.File `embed:""`

	Addr      string `default:"127.0.0.1:8080" env:"AGENTMARKET_ADDR"       help:"Address that the server listens on, as host:port."`
	PublicURL string `                         env:"AGENTMARKET_PUBLIC_URL" help:"Public URL of the server, which may have a path. Defaults to http:// and the listen address, or 127.0.0.1 if that has no host." placeholder:"URL"`
}

// Validate returns an error for an address that a server would not accept.
func (c *openAPICommand) Validate() error {
	if _, err := config.BaseURL(c.PublicURL, c.Addr); err != nil {
		return fmt.Errorf("public-url: %w", err)
	}
	return nil
}

// Run prints the document that a server with these settings serves at
// /openapi.json.
func (c *openAPICommand) Run(to client.Streams) error {
	url, err := config.BaseURL(c.PublicURL, c.Addr)
	if err != nil {
		return err
	}
	document, err := compat.OpenAPIDocument(compat.Options{Version: version(), PublicURL: url})
	if err != nil {
		return err
	}
	_, err = to.Out.Write(document)
	return err
}

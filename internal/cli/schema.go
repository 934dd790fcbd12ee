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
	PublicURL string `                         env:"AGENTMARKET_PUBLIC_URL" help:"Public URL of the server. Defaults to http:// and the listen address." placeholder:"URL"`
}

// Run prints the document that a server with these settings serves at
// /openapi.json.
func (c *openAPICommand) Run(to client.Streams) error {
	settings := config.Config{Addr: c.Addr, PublicURL: c.PublicURL}
	document, err := compat.OpenAPIDocument(compat.Options{Version: version(), PublicURL: settings.BaseURL()})
	if err != nil {
		return err
	}
	_, err = to.Out.Write(document)
	return err
}

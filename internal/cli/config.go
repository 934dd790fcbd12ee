package cli

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/alecthomas/kong"

	"agentmarket.space/server/internal/client"
	"agentmarket.space/server/internal/config"
)

type configCommand struct {
	config.File   `embed:""`
	config.Config `embed:""`

	JSON bool `help:"Print JSON." name:"json"`
}

// Run prints the settings that 'serve' would use with the same flags, environment
// and file. Secrets are masked.
func (c *configCommand) Run(parsed *kong.Context, to client.Streams) error {
	settings, err := config.Settings(parsed)
	if err != nil {
		return err
	}
	if c.JSON {
		byName := map[string]config.Setting{}
		for _, setting := range settings {
			byName[setting.Name] = setting
		}
		encoder := json.NewEncoder(to.Out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(byName)
	}
	table := tabwriter.NewWriter(to.Out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "SETTING\tSOURCE\tVALUE") // Flush returns the error
	for _, setting := range settings {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", setting.Name, setting.Source, setting.Value)
	}
	return table.Flush()
}

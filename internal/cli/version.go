package cli

import (
	"fmt"
	"runtime/debug"

	"agentmarket.space/server/internal/client"
)

type versionCommand struct{}

// Run prints the version.
func (*versionCommand) Run(to client.Streams) error {
	_, err := fmt.Fprintln(to.Out, version())
	return err
}

// version returns the version of the module, or the commit of a development build.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && info.Main.Version == "(devel)" {
			return "devel-" + setting.Value[:min(12, len(setting.Value))]
		}
	}
	return info.Main.Version
}

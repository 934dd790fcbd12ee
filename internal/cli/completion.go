package cli

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"agentmarket.space/server/internal/client"
)

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help says where the script goes.
func (*completionCommand) Help() string {
	return "For this shell alone:\n\n  source <(agentmarket completion bash)\n\nFor all to come, write it where the shell looks:\n\n" +
		"  agentmarket completion bash > /etc/bash_completion.d/agentmarket\n" +
		"  agentmarket completion zsh > \"${fpath[1]}/_agentmarket\"\n" +
		"  agentmarket completion fish > ~/.config/fish/completions/agentmarket.fish"
}

// Run prints the script. It knows the commands and flags of this program and asks for
// nothing when it completes.
func (c *completionCommand) Run(parsed *kong.Context, to client.Streams) error {
	stops := completionNodes(parsed.Model.Node, "")
	script := map[string]func([]completionNode) string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}[c.Shell]
	_, err := fmt.Fprint(to.Out, script(stops))
	return err
}

// completionNode is where a command line may have got to, and what can come next.
type completionNode struct {
	path       string      // the commands so far, each after a space
	candidates []candidate // commands, and the values of the argument that comes first
	flags      []candidate
	values     map[string][]string // of a flag that takes one, as far as they are known
}

// candidate is one that can come next.
type candidate struct{ text, help string }

func completionNodes(node *kong.Node, at string) []completionNode {
	here := completionNode{path: at, values: map[string][]string{}}
	with := node.AllFlags(true)
	if node.DefaultCmd != nil {
		with = node.DefaultCmd.AllFlags(true)
	}
	for _, flags := range with {
		for _, flag := range flags {
			name := "--" + flag.Name
			here.flags = append(here.flags, candidate{name, flag.Help})
			if !flag.IsBool() {
				here.values[name] = enumValues(flag.Value)
			}
		}
	}
	if len(node.Positional) > 0 {
		for _, value := range enumValues(node.Positional[0]) {
			here.candidates = append(here.candidates, candidate{text: value})
		}
	}
	stops := []completionNode{here}
	for _, child := range node.Children {
		if child.Hidden {
			continue
		}
		stops[0].candidates = append(stops[0].candidates, candidate{child.Name, child.Help})
		stops = append(stops, completionNodes(child, at+" "+child.Name)...)
	}
	return stops
}

func enumValues(value *kong.Value) []string {
	if value.Enum == "" {
		return nil
	}
	return value.EnumSlice()
}

// quotedPaths are the stops that a word leads to, quoted, with or between them.
func quotedPaths(stops []completionNode, or string) string {
	var all []string
	for _, s := range stops {
		if s.path != "" {
			all = append(all, shellQuote(s.path))
		}
	}
	return strings.Join(all, or)
}

// shellQuote is a text as a shell takes it literally; fish takes it so too, as long as
// there is no backslash in it.
func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'"'"'`) + "'" }

func joinTexts(words ...candidate) string {
	all := make([]string, len(words))
	for i, w := range words {
		all[i] = w.text
	}
	return strings.Join(all, " ")
}

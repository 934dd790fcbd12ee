package cli

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"agentmarket.space/server/internal/client"
)

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"Shell to complete in: bash, zsh or fish."`
}

// Help explains how to load the script.
func (*completionCommand) Help() string {
	return "Load completion into the current shell:\n\n  source <(agentmarket completion bash)\n\nInstall it for new shells:\n\n" +
		"  agentmarket completion bash > /etc/bash_completion.d/agentmarket\n" +
		"  agentmarket completion zsh > \"${fpath[1]}/_agentmarket\"\n" +
		"  agentmarket completion fish > ~/.config/fish/completions/agentmarket.fish"
}

// Run prints the script. The script contains every command and flag, and does not
// run the program to complete a word.
func (c *completionCommand) Run(parsed *kong.Context, to client.Streams) error {
	nodes := completionNodes(parsed.Model.Node, "")
	script := map[string]func([]completionNode) string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}[c.Shell]
	_, err := fmt.Fprint(to.Out, script(nodes))
	return err
}

// completionNode is a command path and the words that can follow it.
type completionNode struct {
	path       string      // the commands so far, each after a space
	candidates []candidate // subcommands, and the values of the first argument
	flags      []candidate
	values     map[string][]string // the known values of each flag that takes one
}

// candidate is a word that completes a command line, with its description.
type candidate struct{ text, help string }

func completionNodes(parent *kong.Node, path string) []completionNode {
	node := completionNode{path: path, values: map[string][]string{}}
	flagGroups := parent.AllFlags(true)
	if parent.DefaultCmd != nil {
		flagGroups = parent.DefaultCmd.AllFlags(true)
	}
	for _, flags := range flagGroups {
		for _, flag := range flags {
			name := "--" + flag.Name
			node.flags = append(node.flags, candidate{name, flag.Help})
			if !flag.IsBool() {
				node.values[name] = enumValues(flag.Value)
			}
		}
	}
	if len(parent.Positional) > 0 {
		for _, value := range enumValues(parent.Positional[0]) {
			node.candidates = append(node.candidates, candidate{text: value})
		}
	}
	nodes := []completionNode{node}
	for _, child := range parent.Children {
		if child.Hidden {
			continue
		}
		nodes[0].candidates = append(nodes[0].candidates, candidate{child.Name, child.Help})
		nodes = append(nodes, completionNodes(child, path+" "+child.Name)...)
	}
	return nodes
}

func enumValues(value *kong.Value) []string {
	if value.Enum == "" {
		return nil
	}
	return value.EnumSlice()
}

// quotedPaths returns the quoted paths of all nodes except the root, joined by
// separator.
func quotedPaths(nodes []completionNode, separator string) string {
	var all []string
	for _, n := range nodes {
		if n.path != "" {
			all = append(all, shellQuote(n.path))
		}
	}
	return strings.Join(all, separator)
}

// shellQuote quotes text for a POSIX shell. It also works in fish for text
// without backslashes.
func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'"'"'`) + "'" }

func joinTexts(words ...candidate) string {
	all := make([]string, len(words))
	for i, w := range words {
		all[i] = w.text
	}
	return strings.Join(all, " ")
}

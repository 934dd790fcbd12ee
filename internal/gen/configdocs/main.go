// Command configdocs generates the reference of settings and commands from the
// command line model.
//
//	configdocs FILE
package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"agentmarket.space/server/internal/cli"
)

//go:embed intro.md
var intro string

func main() {
	if err := generate(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "configdocs:", err)
		os.Exit(1)
	}
}

func generate(path string) error {
	model, err := cli.Model()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	out.WriteString(intro)
	serve := model.DefaultCmd
	writeFlagTable(&out, ownFlags(serve, nil))
	out.WriteString("\n## Commands\n\nExit codes: 0 for success, 1 if the command failed, 2 for invalid arguments or settings.\n" +
		"`agentmarket COMMAND --help` prints the same text.\n")
	for _, node := range model.Leaves(true) {
		writeCommand(&out, node, ownFlags(serve, nil))
	}
	return os.WriteFile(path, out.Bytes(), 0o600)
}

// ownFlags returns the flags of a command except those in others, in order.
func ownFlags(node *kong.Node, others []*kong.Flag) []*kong.Flag {
	return slices.DeleteFunc(slices.Clone(node.Flags), func(flag *kong.Flag) bool {
		return flag.Hidden || slices.ContainsFunc(others, func(other *kong.Flag) bool { return other.Name == flag.Name && other.Help == flag.Help })
	})
}

func writeCommand(out *bytes.Buffer, node *kong.Node, settings []*kong.Flag) {
	fmt.Fprintf(out, "\n### `%s`\n\n%s\n", node.FullPath(), node.Help)
	usage := []string{node.FullPath()}
	for _, arg := range node.Positional {
		usage = append(usage, arg.Summary())
	}
	rest := ownFlags(node, settings)
	for _, flag := range rest {
		if flag.Required {
			usage = append(usage, flag.Summary())
		}
	}
	switch {
	case len(node.Flags) >= len(settings):
		usage = append(usage, "[settings]")
	case len(node.Flags) > 0:
		usage = append(usage, "[flags]")
	}
	fmt.Fprintf(out, "\n```\n%s\n```\n", strings.Join(usage, " "))
	for i, arg := range node.Positional {
		if i == 0 {
			out.WriteString("\n")
		}
		fmt.Fprintf(out, "- `%s`: %s\n", arg.Summary(), arg.Help)
	}
	if len(rest) > 0 {
		out.WriteString("\n")
		writeFlagTable(out, rest)
	}
}

func writeFlagTable(out *bytes.Buffer, all []*kong.Flag) {
	out.WriteString("| flag | variable | default | description |\n|---|---|---|---|\n")
	for _, flag := range all {
		help := strings.ReplaceAll(flag.Help, "|", `\|`)
		if flag.Tag.Has("secret") {
			help += " *Secret.*"
		}
		fmt.Fprintf(out, "| `--%s` | %s | %s | %s |\n", flag.Name, inlineCode(strings.Join(flag.Envs, " ")), inlineCode(flag.Default), help)
	}
}

func inlineCode(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

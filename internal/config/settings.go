package config

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"
)

// masked replaces secret values.
const masked = "********"

// Setting is the effective value of a setting and its source.
type Setting struct {
	Name     string `json:"-"` // the name of its flag
	Value    string `json:"value"`
	Source   string `json:"from"` // flag, environment, file or default
	Variable string `json:"variable"`
}

// Settings returns the effective settings of a parsed command in the order of
// [Config]. Secrets and passwords in addresses are masked.
func Settings(parsed *kong.Context) ([]Setting, error) {
	flags, err := settingFlags()
	if err != nil {
		return nil, err
	}
	sources := map[*kong.Flag]string{}
	for _, step := range parsed.Path {
		switch {
		case step.Flag == nil:
		case step.Resolved:
			sources[step.Flag] = "file"
		default:
			sources[step.Flag] = "flag"
		}
	}
	var all []Setting
	for _, flag := range parsed.Flags() {
		if flags[flag.Name] == nil {
			continue
		}
		s := Setting{Name: flag.Name, Value: maskedValue(flag), Source: sources[flag], Variable: strings.Join(flag.Envs, " ")}
		switch {
		case s.Source != "":
		case envVariable(flag) != "":
			s.Source = "environment"
		default:
			s.Source = "default"
		}
		all = append(all, s)
	}
	return all, nil
}

// settingFlags returns the flags of [Config] by name.
func settingFlags() (map[string]*kong.Flag, error) {
	parser, err := kong.New(&Config{}, kong.NoDefaultHelp())
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	all := map[string]*kong.Flag{}
	for _, flag := range parser.Model.Flags {
		all[flag.Name] = flag
	}
	return all, nil
}

// maskedValue returns the value of a flag without secrets.
func maskedValue(flag *kong.Flag) string {
	text := formatValue(flag.Target)
	if flag.Tag.Has(secretTag) && text != "" {
		return masked
	}
	return maskCredentials(text)
}

// formatValue formats a value as on the command line.
func formatValue(value reflect.Value) string {
	kind := value.Kind()
	if kind == reflect.Pointer && value.IsNil() {
		return ""
	}
	if kind == reflect.Pointer {
		return formatValue(value.Elem())
	}
	if kind != reflect.Slice {
		return fmt.Sprint(value.Interface())
	}
	items := make([]string, value.Len())
	for i := range items {
		items[i] = formatValue(value.Index(i))
	}
	return strings.Join(items, ",")
}

// maskCredentials masks the user information and the password parameters of an
// address, where it may hold a password or a token.
func maskCredentials(text string) string {
	text = regexp.MustCompile(`^([a-z]+://)?\S*@`).ReplaceAllString(text, "${1}"+masked+"@")
	return regexp.MustCompile(`([?&](?:ssl)?password=)[^\s&]+`).ReplaceAllString(text, "${1}"+masked)
}
